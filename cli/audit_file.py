"""Carries out `ais audit verify --export`: checks a file and words the findings. It needs no database."""

from collections.abc import Callable, Iterator
from pathlib import Path

from cli.audit import Line
from cli.audit_chain import Ticker, fault_line
from domain.values import printable
from storage.audit import checkpoints, manifests
from storage.audit.checkpoints import Checkpoint, NotSigned
from storage.audit.file_checking import ExportedDesk, FileCheck
from storage.audit.files import need
from storage.audit.manifests import ExportManifest


def file_verified(file: Path, signed: Checkpoint | None, key: str | None, say: Callable[[str], None]) -> Iterator[Line]:
    """The lines to print; the last says whether the file is whole. Raises if it cannot be checked.

    Without `signed`, the checkpoint in the manifest is used, if there is a public key to check its signature.
    """
    manifest = manifests.read(file)
    need(manifest.format)
    if signed is None and key is not None:
        signed = _own_checkpoint(manifest, key)
    if signed and signed.database_id != manifest.database_id:
        raise NotSigned(
            f"the checkpoint belongs to database {signed.database_id}, but the file belongs to {manifest.database_id}"
        )
    check = FileCheck(manifest, signed)
    check.run(file, Ticker(say).tell)
    yield from (_desk_line(desk, signed) for desk in check.desks.values())
    yield from (Line(printable(f"{file.name}: {problem}"), agrees=False) for problem in check.problems)
    yield from map(fault_line, check.faults)
    broken = bool(check.problems or check.faults)
    if not broken:
        check.refuse_unsigned()
    yield Line(f"{check.rows:,} rows checked: {'BROKEN' if broken else 'the file is whole'}.", agrees=not broken)


def _own_checkpoint(manifest: ExportManifest, key: str) -> Checkpoint:
    if manifest.checkpoint is None:
        raise NotSigned("the manifest has no checkpoint whose signature could be checked; give one with --checkpoint")
    return checkpoints.read(manifest.checkpoint, key)


def _desk_line(desk: ExportedDesk, signed: Checkpoint | None) -> Line:
    first, last = desk.named.first, desk.named.last
    parts = [f"{desk.rows:,} rows" + (f", {first.seq:,} to {last.seq:,}" if first and last else "")]
    if signed:
        parts.append(f"signed up to row {desk.signed.seq:,}" if desk.proved and desk.signed else "not signed")
    return Line(printable(f"{desk.desk}: {'; '.join(parts)}."))
