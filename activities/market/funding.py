"""Funding rates: one rate for all symbols, or files of the rates that an exchange once had."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path

from activities.market.lines import FileLine, places, read_lines
from activities.market.port import MarketError
from domain.paper.funding import nearest_funding_hour

COLUMNS = ("funding_time_ms", "funding_rate")
_EXPECTED = f"a header {','.join(COLUMNS)}, then one rate a line, one for each funding hour (more columns are ignored)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Rates = Mapping[datetime, Decimal]


class FundingTable:
    """Rates by symbol and funding hour. A symbol with a file uses only that file; an hour missing there has no rate."""

    def __init__(self, constant: Decimal, files: Mapping[str, Rates] | None = None) -> None:
        self._constant = constant
        self._files = files or {}

    def rate(self, symbol: str, at: datetime) -> Decimal | None:
        """The rate of a funding hour."""
        rates = self._files.get(symbol)
        return self._constant if rates is None else rates.get(at)


def read_funding(path: Path) -> dict[datetime, Decimal]:
    """The rates of a file by their funding hour; MarketError names file, line and what is expected."""
    lines = read_lines(path)
    cells = places(path, next(lines), COLUMNS, _EXPECTED)
    by_hour: dict[datetime, Decimal] = {}
    for line in lines:
        hour, rate = _parse(path, line, cells)
        if hour in by_hour:
            raise MarketError(f"{path}, line {line.number}: a second rate for {hour.isoformat()}; expected {_EXPECTED}")
        by_hour[hour] = rate
    if not by_hour:
        raise MarketError(f"{path}: holds no rate; expected {_EXPECTED}")
    return by_hour


def _parse(path: Path, line: FileLine, cells: Sequence[int]) -> tuple[datetime, Decimal]:
    try:
        time_ms, rate = (line.cells[cell].strip() for cell in cells)
        hour, fraction = nearest_funding_hour(_EPOCH + timedelta(milliseconds=int(time_ms))), Decimal(rate)
        if not -1 < fraction < 1:
            raise ValueError("not a fraction")
    except (IndexError, ValueError, InvalidOperation, OverflowError) as error:
        text = f"{path}, line {line.number}: {line.shown!r} is not a funding rate; expected {_EXPECTED}"
        raise MarketError(text) from error
    return hour, fraction
