"""The manifest of an exported chain: each desk's number of rows, its first and last row, and the hash of the file.

It is written last, so a file without a manifest is an incomplete export. It is not signed; the checkpoint in it is.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pydantic import Field, ValidationError

from domain.audit import Link
from domain.values import Moment, Value
from storage.audit.files import ExportFormat

SUFFIX = ".manifest.json"
VERSION = 1


class NoManifest(Exception):
    """There is no manifest beside the file, or this program cannot read it: the export is incomplete."""


class ExportedRow(Value):
    """Identifies one row."""

    seq: int
    hash: str = Field(pattern="^([0-9a-f]{2})*$")


class ExportedChain(Value):
    """The rows of one desk: their number, and the first and last one. A desk without rows in the window has neither."""

    rows: int = 0
    first: ExportedRow | None = None
    last: ExportedRow | None = None


class ExportManifest(Value):
    """What an exported file must contain. `desk`, `since` and `until` are as requested; `checkpoint` is as signed."""

    version: int = VERSION
    made_at: Moment
    made_by: str
    database_id: str | None
    file: str
    format: ExportFormat
    sha256: str
    desk: str | None
    since: Moment | None
    until: Moment | None
    rows: int
    chains: dict[str, ExportedChain]
    checkpoint: str | None


class RowTally:
    """Counts rows as they pass through."""

    def __init__(self) -> None:
        self.rows = 0
        self.first: Link | None = None
        self._last: Link | None = None

    def counted(self, rows: Iterator[Link]) -> Iterator[Link]:
        """Yields the same rows."""
        for row in rows:
            self.first, self._last = self.first or row, row
            self.rows += 1
            yield row

    @property
    def chain(self) -> ExportedChain:
        """What passed through."""
        return ExportedChain(rows=self.rows, first=_named(self.first), last=_named(self._last))


def _named(row: Link | None) -> ExportedRow | None:
    return ExportedRow(seq=row.seq, hash=row.hash.hex()) if row else None


def path_of(file: Path) -> Path:
    """The manifest of a file."""
    return file.with_name(file.name + SUFFIX)


def read(file: Path) -> ExportManifest:
    """The manifest of this file. Raises NoManifest."""
    path = path_of(file)
    try:
        found = ExportManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NoManifest(f"there is no {path.name} beside it, so the export is incomplete") from None
    except ValidationError as error:
        raise NoManifest(f"{path.name} is not a manifest: {error.errors()[0]['msg']}") from None
    if found.version != VERSION:
        raise NoManifest(f"{path.name} has version {found.version}, but this program reads version {VERSION}")
    return found


def sha256_of(path: Path) -> str:
    """The hash of the file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class NewExport:
    """A file and its manifest while they are being written, under temporary names beside their final ones.

    Both are on disk before either gets its final name, the manifest last. If anything fails, neither gets it.
    """

    def __init__(self, file: Path, *, replace: bool) -> None:
        self._places = (file, path_of(file))
        self._replace = replace
        # The names that our files have, or are about to get, each with the identity of its file.
        self._placed: list[tuple[Path, os.stat_result]] = []
        self.parts: list[Path] = []

    def refuse_existing(self) -> None:
        """Raises FileExistsError if one of the final names is taken."""
        for place in self._places:
            if not self._replace and os.path.lexists(place):
                raise _taken(place)

    @contextmanager
    def part(self) -> Iterator[BinaryIO]:
        """Opens the next of the two, which only its owner may read."""
        place = self._places[len(self.parts)]
        number, name = tempfile.mkstemp(".part", f".{place.name[:100]}.", place.parent)
        self.parts.append(Path(name))
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(number)

    def place(self) -> None:
        """Gives both their final names."""
        if self._replace:
            # The old manifest must never be beside the new file.
            self._places[1].unlink(missing_ok=True)
        for part, place in zip(self.parts, self._places, strict=True):
            # Noted before the file gets its name: Ctrl-C may come in between.
            self._placed.append((place, part.stat()))
            self._name(part, place)
        _sync(self._places[0].parent)
        self._placed.clear()

    def _name(self, part: Path, place: Path) -> None:
        try:
            # Unlike a rename, a link never replaces a file that appeared meanwhile.
            os.replace(part, place) if self._replace else os.link(part, place)
        except FileExistsError:
            raise _taken(place) from None
        except OSError:
            # The file system has no hard links.
            if os.path.lexists(place) and not self._replace:
                raise _taken(place) from None
            os.replace(part, place)

    def discard(self) -> None:
        """Removes incomplete files."""
        for path in (*(place for place, made in self._placed if _is_same_file(place, made)), *self.parts):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _is_same_file(place: Path, made: os.stat_result) -> bool:
    """Whether the file with this name is the one that was made here, and not somebody else's."""
    try:
        return os.path.samestat(place.lstat(), made)
    except OSError:
        return False


def _taken(place: Path) -> FileExistsError:
    return FileExistsError(f"{place} exists already; --force replaces it")


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def new_export(file: Path, *, replace: bool) -> Iterator[NewExport]:
    """Makes the two files within the block. If the block ends early, by Ctrl-C too, no file is left that looks complete."""
    export = NewExport(file, replace=replace)
    export.refuse_existing()
    try:
        yield export
    finally:
        export.discard()
