"""CSV files read line by line, however long they are."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from activities.market.port import MarketError


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
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            yield FileLine(1, next(lines, []))
            for cells in lines:
                if cells:
                    yield FileLine(lines.line_num, cells)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MarketError(f"{path}: cannot be read as CSV: {error}") from error


def places(path: Path, header: FileLine, names: Sequence[str], expected: str) -> list[int]:
    """The indexes of the named columns."""
    missing = [name for name in names if name not in header.cells]
    if missing:
        raise MarketError(f"{path}, line 1: no column {missing[0]}; expected {expected}")
    return [header.cells.index(name) for name in names]
