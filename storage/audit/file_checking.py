"""Checks an exported file: its hash, the hash and link of every row, and the ends and counts that its manifest states."""

from collections.abc import Iterator
from pathlib import Path

from domain.audit import AuditFault, ChainHead, ChainWalk, FaultKind, Link
from storage.audit.checkpoints import Checkpoint, NotSigned, SignedHead
from storage.audit.files import read_rows
from storage.audit.manifests import ExportedChain, ExportManifest, sha256_of
from storage.audit.verifying import ROWS_A_FETCH, FaultCount, Progress, Verification


class ExportedDesk:
    """One desk's rows in the file, while they are checked."""

    def __init__(self, desk: str, named: ExportedChain, signed: SignedHead | None, *, whole: bool) -> None:
        self.desk = desk
        self.named = named
        self.signed = signed
        # Whether the signed row is in the file and unchanged.
        self.proved = False
        self._seen = False
        # An export without a window must begin with the chain's first row.
        self._walk = ChainWalk(desk, 1 if whole or named.first is None else named.first.seq)

    @property
    def rows(self) -> int:
        """The number of rows so far."""
        return self._walk.count

    @property
    def unsigned(self) -> bool:
        """Whether the signed row is missing here, so that the signature proves nothing."""
        return self.signed is not None and not self._seen

    def take(self, row: Link) -> Iterator[AuditFault]:
        """Checks the next row, and returns the faults that it shows."""
        first = self.named.first
        if self.rows == 0 and first and row.seq == first.seq and row.hash.hex() != first.hash:
            yield AuditFault(FaultKind.EDITED, self.desk, row.seq, "the manifest names a different row there")
        if self.signed and row.seq == self.signed.seq:
            self._seen, self.proved = True, row.hash.hex() == self.signed.hash
            if not self.proved:
                yield AuditFault(FaultKind.REWRITTEN, self.desk, row.seq, "it is not the row that was signed")
        yield from self._walk.take(row)

    def end(self) -> Iterator[AuditFault]:
        """The faults that only the end of the chain shows."""
        last = self.named.last
        yield from self._walk.end(ChainHead(last.seq, bytes.fromhex(last.hash)) if last else None)


class FileCheck:
    """The findings about a file: by desk, by kind of fault, and about the file as a whole."""

    def __init__(self, manifest: ExportManifest, signed: Checkpoint | None) -> None:
        self.problems: list[str] = []
        self.desks: dict[str, ExportedDesk] = {}
        self._manifest = manifest
        self._signed = signed
        self._found = Verification()
        self._unreadable = 0
        for desk in manifest.chains:
            self._add(desk)

    @property
    def rows(self) -> int:
        """The rows of all desks."""
        return sum(desk.rows for desk in self.desks.values())

    @property
    def faults(self) -> list[FaultCount]:
        """The faults, in the order in which they were found."""
        return self._found.faults

    def run(self, path: Path, progress: Progress) -> None:
        """Checks the file. Reads it twice: as bytes, and row by row."""
        if (sha256 := sha256_of(path)) != self._manifest.sha256:
            self.problems.append(f"its SHA-256 is {sha256}, but the manifest says {self._manifest.sha256}")
        for number, row in enumerate(read_rows(path, self._manifest.format), 1):
            self._take(number, row)
            if number % ROWS_A_FETCH == 0:
                progress(number)
        self._end()

    def _add(self, desk: str) -> ExportedDesk:
        named = self._manifest.chains.get(desk, ExportedChain())
        signed = self._signed.chains.get(desk) if self._signed else None
        self.desks[desk] = ExportedDesk(desk, named, signed, whole=self._manifest.since is None)
        return self.desks[desk]

    def _take(self, number: int, row: Link | None) -> None:
        if row:
            self._found.note((self.desks.get(row.desk) or self._add(row.desk)).take(row))
            return
        self._unreadable += 1
        if self._unreadable == 1:
            self.problems.append(f"row {number:,} of the file is not a row of a chain")

    def _end(self) -> None:
        for desk in self.desks.values():
            self._found.note(desk.end())
            if desk.rows != desk.named.rows:
                self.problems.append(f"{desk.rows:,} rows of {desk.desk}, but the manifest says {desk.named.rows:,}")
        if self.rows != self._manifest.rows:
            self.problems.append(f"{self.rows:,} rows, but the manifest says {self._manifest.rows:,}")
        if self._signed:
            self._found.note(_lacking(self._manifest, self._signed, self.desks))

    def refuse_unsigned(self) -> None:
        """Raises NotSigned if the given checkpoint cannot prove these rows. A desk that it does not contain is newer than it."""
        for desk in self.desks.values():
            if desk.rows and desk.unsigned and desk.signed:
                raise NotSigned(
                    f"the checkpoint signs row {desk.signed.seq:,} of {desk.desk}, which is not in this file"
                )
        if self._signed and not any(desk.proved for desk in self.desks.values()):
            raise NotSigned("the checkpoint signs no row of this file")


def _lacking(manifest: ExportManifest, signed: Checkpoint, desks: dict[str, ExportedDesk]) -> Iterator[AuditFault]:
    """Rows that were signed before the export was made: an export without an end has to contain them."""
    if manifest.until is not None or signed.at > manifest.made_at:
        return
    for desk, head in signed.chains.items():
        last = desks[desk].named.last if desk in desks else None
        wanted = manifest.desk in (None, desk) and (last is not None or manifest.since is None)
        if wanted and (last is None or last.seq < head.seq):
            yield AuditFault(FaultKind.CUT_OFF, desk, head.seq, f"row {head.seq} was signed at {signed.at.isoformat()}")
