"""CSV files read line by line, however long they are."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from activities.market.port import MarketError

BLOCK_CHARS = 1 << 15


class FileLine(NamedTuple):
    """A line that is not empty, and its number in the file."""

    number: int
    cells: list[str]

    @property
    def shown(self) -> str:
        """Its beginning, for an error message."""
        return ",".join(self.cells)[:80]


def read_lines(path: Path) -> Iterator[FileLine]:
    """The header (empty in an empty file), then every line that is not empty."""
    with readable(path), path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        yield FileLine(1, next(lines, []))
        for cells in lines:
            if cells:
                yield FileLine(lines.line_num, cells)


def read_blocks(path: Path) -> Iterator[tuple[int, Iterable[str]]]:
    """The lines after the header as they are written, in lists of some hundred, each with the number of lines before it. A
    quoted cell may hold a line break: from the first quote on, the rest comes as one iterator."""
    with readable(path), path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        next(lines, None)
        number = lines.line_num
        while texts := file.readlines(BLOCK_CHARS):
            yield number, chain(texts, file) if '"' in "".join(texts) else texts
            number += len(texts)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Makes a MarketError of a file that cannot be read."""
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MarketError(f"{path}: cannot be read as CSV: {error}") from error


def places(path: Path, header: FileLine, names: Sequence[str], expected: str) -> list[int]:
    """The indexes of the named columns."""
    missing = [name for name in names if name not in header.cells]
    if missing:
        raise MarketError(f"{path}, line 1: no column {missing[0]}; expected {expected}")
    return [header.cells.index(name) for name in names]
