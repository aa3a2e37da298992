"""The formats of an exported chain: writes its rows to a file, and reads them back.

`body` is the exact text, since the hash covers it; `previous` and `hash` are hex digits, in Parquet bytes. Reading needs no
database. An unreadable row does not end the reading: it is returned as None.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from domain.audit import Link

# For Parquet. The writer holds a group in memory until it is written, as columns, which take half as much as Python's objects.
# So the columns are built from a few rows at a time.
ROWS_A_GROUP, ROWS_A_BATCH = 2_000, 200
BYTES_A_PAGE = 2**17
# Optional imports of pyarrow, 23 MB together.
_UNNEEDED = ("numpy", "pyarrow._s3fs", "pyarrow._gcsfs", "pyarrow._azurefs", "pyarrow._hdfs")
# Bodies are unbounded, but the csv module has a limit.
LONGEST_FIELD = 2**30


class ExportFormat(StrEnum):
    """The file format of an exported chain."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


class ParquetMissing(Exception):
    """The library for Parquet is not installed."""

    def __init__(self) -> None:
        super().__init__("Parquet needs an extra: pip install ais[parquet]")


def write_rows(file: BinaryIO, kind: ExportFormat, rows: Iterable[Link]) -> None:
    """Writes all rows to an open file. Raises ParquetMissing before it takes anything from `rows`."""
    _WRITERS[kind](file, rows)


def read_rows(path: Path, kind: ExportFormat) -> Iterator[Link | None]:
    """Yields the rows; None for anything that is not a row of a chain."""
    return _READERS[kind](path)


def need(kind: ExportFormat) -> None:
    """Raises ParquetMissing if this format needs a library that is not installed."""
    if kind is ExportFormat.PARQUET:
        _pyarrow()


def _write_ndjson(file: BinaryIO, rows: Iterable[Link]) -> None:
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    for row in rows:
        spelt = row._asdict() | {"previous": row.previous.hex(), "hash": row.hash.hex()}
        file.write(encode(spelt).encode() + b"\n")


def _read_ndjson(path: Path) -> Iterator[Link | None]:
    with path.open("rb") as file:
        for line in file:
            yield _link(_parsed(line))


def _write_csv(file: BinaryIO, rows: Iterable[Link]) -> None:
    # As in RFC 4180; this also makes every version of Python quote a carriage return within a text.
    file.write((",".join(Link._fields) + "\r\n").encode())
    lines = csv.writer(_Encoded(file), lineterminator="\r\n")
    for row in rows:
        lines.writerow((*row[:6], row.previous.hex(), row.hash.hex()))


class _Encoded:
    """A file-like object for writers of lines, which passes everything on and keeps nothing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.encode())


def _read_csv(path: Path) -> Iterator[Link | None]:
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            lines = csv.reader(file)
            if next(lines, None) != list(Link._fields):
                yield None
            for values in lines:
                yield _link(dict(zip(Link._fields, values, strict=True)) if len(values) == len(Link._fields) else None)
    except csv.Error:
        # It is not known where the next row begins.
        yield None
    finally:
        csv.field_size_limit(limit)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_named_once)
    except (ValueError, RecursionError):
        return None


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A row with each name once and no other. Of a name that is there twice, the next reader may take the other value."""
    row = dict(pairs)
    if len(pairs) != len(Link._fields) or row.keys() != set(Link._fields):
        raise ValueError
    return row


def _link(found: Any) -> Link | None:
    try:
        texts = [found[name] for name in ("desk", "at", "kind", "subject", "body")]
        # JSON can express texts that a database cannot hold.
        "".join(texts).encode()
        desk, at, kind, subject, body = texts
        previous, hash_ = bytes.fromhex(found["previous"]), bytes.fromhex(found["hash"])
        return Link(desk, int(found["seq"]), at, kind, subject, body, previous, hash_)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _write_parquet(file: BinaryIO, rows: Iterable[Link]) -> None:
    arrow = _pyarrow()
    kinds = {"seq": arrow.int64(), "previous": arrow.binary(), "hash": arrow.binary()}
    # Not nullable, so that readers need no check.
    schema = arrow.schema([arrow.field(name, kinds.get(name, arrow.string()), nullable=False) for name in Link._fields])
    batches = _batches(arrow, schema, iter(rows))
    # Columns with few distinct texts; for the others a dictionary would waste memory.
    with arrow.parquet.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=["desk", "kind"], write_statistics=["desk", "seq"],
        data_page_size=BYTES_A_PAGE, memory_pool=arrow.system_memory_pool(),
    ) as writer:  # fmt: skip
        while group := list(islice(batches, ROWS_A_GROUP // ROWS_A_BATCH)):
            writer.write_table(arrow.Table.from_batches(group), ROWS_A_GROUP)


def _batches(arrow: Any, schema: Any, rows: Iterator[Link]) -> Iterator[Any]:
    # Arrow's own pool never returns memory.
    pool = arrow.system_memory_pool()
    while batch := list(islice(rows, ROWS_A_BATCH)):
        columns = zip(zip(*batch, strict=True), schema, strict=True)
        arrays = [arrow.array(values, field.type, memory_pool=pool) for values, field in columns]
        yield arrow.record_batch(arrays, schema=schema)


def _read_parquet(path: Path) -> Iterator[Link | None]:
    arrow = _pyarrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            for batch in _read_batches(file):
                yield from (_checked(values) for values in zip(*(c.to_pylist() for c in batch.columns), strict=True))
    except (arrow.ArrowException, OSError, ValueError):
        # The rows after the damage cannot be located.
        yield None


def _read_batches(file: Any) -> Iterator[Any]:
    # Group by group: otherwise Arrow opens all groups at once, which takes 100 MB for a million rows.
    for group in range(file.num_row_groups):
        yield from file.iter_batches(ROWS_A_BATCH, row_groups=[group], columns=list(Link._fields), use_threads=False)


_TYPES = (str, int, str, str, str, str, bytes, bytes)


def _checked(values: tuple[Any, ...]) -> Link | None:
    right = len(values) == len(_TYPES) and all(
        isinstance(each, kind) for each, kind in zip(values, _TYPES, strict=True)
    )
    return Link._make(values) if right else None


def _pyarrow() -> Any:
    try:
        with _not_importable(_UNNEEDED):
            import pyarrow
            import pyarrow.parquet
    except ImportError:
        raise ParquetMissing from None
    return pyarrow


@contextmanager
def _not_importable(names: Iterable[str]) -> Iterator[None]:
    """Makes these modules unimportable unless they are imported already, as if they were not installed."""
    hidden: dict[str, Any] = {name: None for name in names if name not in sys.modules}
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


_WRITERS: dict[ExportFormat, Callable[[BinaryIO, Iterable[Link]], None]] = {
    ExportFormat.NDJSON: _write_ndjson, ExportFormat.CSV: _write_csv, ExportFormat.PARQUET: _write_parquet,
}  # fmt: skip
_READERS: dict[ExportFormat, Callable[[Path], Iterator[Link | None]]] = {
    ExportFormat.NDJSON: _read_ndjson, ExportFormat.CSV: _read_csv, ExportFormat.PARQUET: _read_parquet,
}  # fmt: skip
