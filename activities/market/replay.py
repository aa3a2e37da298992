"""A market read from files of bars, one bar a cycle; when a file is finished, nothing comes after it."""

import csv
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Protocol

from activities.market.port import MarketError
from activities.market.steps import rules_near
from domain.market import Bar, SymbolRules

COLUMNS = ("open_time_ms", "open", "high", "low", "close", "volume")
_EXPECTED = f"a header {','.join(COLUMNS)}, then one bar a line in the order of time (more columns are ignored)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Lines(Protocol):
    """What `csv.reader` makes."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...


class ReplayMarket:
    """Bars from one file a symbol. A symbol without a file has no data: nothing is guessed."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._bars = {symbol: read_bars(path) for symbol, path in files.items()}
        self._rules = {symbol: _rules(symbol, bars) for symbol, bars in self._bars.items()}

    @property
    def warm_up(self) -> int:
        """None: the first cycle sees the first bar of the file."""
        return 0

    def rules(self, symbol: str) -> SymbolRules | None:
        """Steps read off the file: the tick is its finest price."""
        return self._rules.get(symbol)

    def bar(self, symbol: str, number: int) -> Bar | None:
        """Bar `number` of the symbol's file."""
        bars = self._bars.get(symbol, [])
        return bars[number] if 0 <= number < len(bars) else None


def read_bars(path: Path) -> list[Bar]:
    """Every bar of a file; MarketError names file, line and what is expected."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return _read(path, csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MarketError(f"{path}: cannot be read as CSV: {error}") from error


def _read(path: Path, lines: _Lines) -> list[Bar]:
    header: list[str] = next(iter(lines), [])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise MarketError(f"{path}, line 1: no column {missing[0]}; expected is {_EXPECTED}")
    places = [header.index(name) for name in COLUMNS]
    bars: list[Bar] = []
    for row in lines:
        if row:
            bars.append(_parse(path, lines.line_num, row, places, bars[-1] if bars else None))
    if not bars:
        raise MarketError(f"{path}: holds no bar; expected is {_EXPECTED}")
    return bars


def _parse(path: Path, line: int, row: list[str], places: list[int], before: Bar | None) -> Bar:
    try:
        time_ms, *numbers = (row[place].strip() for place in places)
        bar = _bar(int(time_ms), [Decimal(number) for number in numbers])
    except (IndexError, ValueError, InvalidOperation, OverflowError) as error:
        shown = ",".join(row)[:80]
        raise MarketError(f"{path}, line {line}: {shown!r} is not a bar; expected is {_EXPECTED}") from error
    if problem := _problem(bar, before):
        raise MarketError(f"{path}, line {line}: {problem}; expected is {_EXPECTED}")
    return bar


def _bar(time_ms: int, numbers: list[Decimal]) -> Bar:
    if not all(number.is_finite() for number in numbers):
        raise ValueError("not a finite number")
    open_, high, low, close, volume = numbers
    # timedelta, not fromtimestamp: exact, and free of the machine's time zone.
    open_time = _EPOCH + timedelta(milliseconds=time_ms)
    return Bar(open_time=open_time, open=open_, high=high, low=low, close=close, volume=volume)


def _problem(bar: Bar, before: Bar | None) -> str | None:
    if not 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high:
        return "prices must be above 0, with low the lowest and high the highest"
    if bar.volume < 0:
        return "the volume is negative"
    if before and bar.open_time <= before.open_time:
        return f"the bar is not later than the one before it ({before.open_time.isoformat()})"
    return None


def _rules(symbol: str, bars: list[Bar]) -> SymbolRules:
    finest = min(_exponent(price) for bar in bars for price in (bar.open, bar.high, bar.low, bar.close))
    return rules_near(symbol, bars[0].close, Decimal(1).scaleb(min(finest, 0)))


def _exponent(price: Decimal) -> int:
    return int(price.as_tuple().exponent)
