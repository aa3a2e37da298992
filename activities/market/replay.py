"""A market read from files of bars, one bar a cycle. After the end of a file there are no more bars."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from functools import cache
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from activities.market.lines import FileLine, places, read_blocks, read_lines, readable
from activities.market.port import MarketError, MarketSource
from activities.market.steps import rules_near, tick_near
from domain.trading.market import Bar, SymbolRules
from domain.values import EXACT, ZERO, assembled

COLUMNS = ("open_time_ms", "open", "high", "low", "close", "volume")
QUOTE_COLUMN = "quote_volume"
EPISODE_COLUMN = "episode"
# A price with more digits than a double holds was once a double: 1.1953999999999998 is a traded 1.1954.
_DIGITS = 15
DOUBLE = Context(prec=_DIGITS)
_EXPECTED = f"a header {','.join(COLUMNS)}, then one bar a line in the order of time (more columns are ignored)"
# The range of prices and volumes: accounts beyond it could not be computed exactly in the digits used for money.
_LOWEST, _HIGHEST, _MOST = Decimal("1e-18"), Decimal("1e18"), Decimal("1e30")
# Present-day times in seconds; read as milliseconds they would lie in 1970.
_SECONDS = range(1_000_000_000, 10_000_000_000)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_MS = 253_402_300_800_000  # of what a datetime holds: the year 10000
# The precision of a volume in base units that was converted from quote currency.
VOLUME_STEP = Decimal("1e-12")

# The most bars in a block that is read line by line.
BARS_A_BLOCK = 512
# Short enough for a double, however it is written; what is no number is found out later.
_SHORT_PRICE = rf"[0-9][0-9.]{{0,{_DIGITS - 1}}}"

Cells = Callable[[Sequence[str]], tuple[str, ...]]
VolumeUnit = Literal["base", "quote"]
BASE: VolumeUnit = "base"
QUOTE: VolumeUnit = "quote"


class ReplayMarket(MarketSource):
    """Bars from one file for each symbol. A symbol without a file has no data: nothing is guessed."""

    def __init__(self, files: Mapping[str, Path], volume: VolumeUnit = BASE) -> None:
        self._bars = {symbol: read_bars(path, volume) for symbol, path in files.items()}
        self._rules = {symbol: rules_of(symbol, bars) for symbol, bars in self._bars.items()}

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


def read_bars(path: Path, volume: VolumeUnit = BASE) -> list[Bar]:
    """Every bar of a file; MarketError names file, line and what is expected."""
    return list(iter_bars(path, volume))


def iter_bars(path: Path, volume: VolumeUnit = BASE) -> Iterator[Bar]:
    """The bars of a file one after another, however long it is; MarketError as soon as one is wrong.

    `volume` is the unit of the column `volume`; bars always count base units. A file with `quote_volume` and without `volume`
    counts quote currency by itself.
    """
    return (bar for _, bar in iter_episodes(path, volume))


def iter_episodes(path: Path, volume: VolumeUnit = BASE) -> Iterator[tuple[str, Bar]]:
    """The same, each bar with its episode: the value of the column `episode`, or an empty text."""
    lines = read_lines(path)
    form, before, moments = _Form.of(path, next(lines), volume), None, _Moments()
    for line in lines:
        bar = _parse(form, line, before, moments.of)
        before = bar.open_time
        yield form.episode(line), bar
    if before is None:
        raise MarketError(f"{path}: holds no bar; expected {_EXPECTED}")


Columns = Sequence[NDArray[Any]]


class Block(NamedTuple):
    """Some bars of one episode in a row. `columns` are their times in milliseconds, prices and volumes as arrays, if the file
    told them without making the bars."""

    episode: str
    bars: Sequence[Bar]
    columns: Columns | None = None


def iter_blocks(path: Path, volume: VolumeUnit = BASE) -> Iterator[Block]:
    """The bars of `iter_episodes`, some hundred at once. Most are made from columns of the file, without a look at each line."""
    form, before = _Form.of(path, next(read_lines(path)), volume), None
    with readable(path):
        for number, texts in read_blocks(path):
            if before is not None and isinstance(texts, list) and (block := _block(form, texts, milliseconds(before))):
                before = block.bars[-1].open_time
                yield block
                continue
            for episode, pairs in groupby(_parsed(form, number, texts, before), itemgetter(0)):
                while bars := [bar for _, bar in islice(pairs, BARS_A_BLOCK)]:
                    before = bars[-1].open_time
                    yield Block(episode, bars)
    if before is None:
        raise MarketError(f"{path}: holds no bar; expected {_EXPECTED}")


def _parsed(form: "_Form", number: int, texts: Iterable[str], before: datetime | None) -> Iterator[tuple[str, Bar]]:
    lines = csv.reader(texts)
    for line in (FileLine(number + lines.line_num, cells) for cells in lines if cells):
        bar = _parse(form, line, before)
        before = bar.open_time
        yield form.episode(line), bar


def iter_checked(path: Path, volume: VolumeUnit, steps: Mapping[str, "Steps"]) -> Iterator[tuple[str, Sequence[int]]]:
    """Checks each line as `iter_episodes` does, without making its bar, and tells the steps of its episode of the prices. Yields
    the episode of some bars in a row, and their times in milliseconds.

    Most lines are found right many at once, by binary floating point: up to 15 digits, it tells any two numbers apart as
    decimals do.
    """
    form, before = _Form.of(path, next(read_lines(path)), volume), None
    with readable(path):
        for number, texts in read_blocks(path):
            if before is not None and isinstance(texts, list) and (found := _glance(form, texts, before, steps)):
                yield found
                before = found[1][-1]
                continue
            for episode, bar in _parsed(form, number, texts, None if before is None else moment_of(before)):
                steps[episode].add(bar)
                before = milliseconds(bar.open_time)
                yield episode, [before]
    if before is None:
        raise MarketError(f"{path}: holds no bar; expected {_EXPECTED}")


class _Form(NamedTuple):
    """Where a file's lines have what, and in which unit the volume is."""

    path: Path
    places: Sequence[int]
    cells: Cells
    label: int | None
    volume: VolumeUnit

    @classmethod
    def of(cls, path: Path, header: FileLine, volume: VolumeUnit) -> Self:
        """As the header says."""
        names: tuple[str, ...] = COLUMNS
        if QUOTE_COLUMN in header.cells and "volume" not in header.cells:
            names, volume = (*COLUMNS[:-1], QUOTE_COLUMN), QUOTE
        label = header.cells.index(EPISODE_COLUMN) if EPISODE_COLUMN in header.cells else None
        where = tuple(places(path, header, names, _EXPECTED))
        return cls(path, where, itemgetter(*where), label, volume)

    def episode(self, line: FileLine) -> str:
        """The episode of a line."""
        label = self.label
        return "" if label is None else "".join(line.cells[label : label + 1]).strip()


def rules_of(symbol: str, bars: Iterable[Bar]) -> SymbolRules:
    """A symbol's rules from one pass over its bars: see `Steps`."""
    steps = Steps()
    for bar in bars:
        steps.add(bar)
    return steps.rules(symbol)


class Steps:
    """A symbol's steps, derived from its bars; the lot suits the first close.

    The tick is the finest price. Zeros at its end count as long as they leave a price no more than six digits: 41677.0 has
    a tick of 0.1, and so does 41677.00000000.
    """

    def __init__(self) -> None:
        self._first: Decimal | None = None
        self._written = 0
        self._finest = 0
        # A price with as many places as the longest one that is a multiple of the finest step adds nothing new.
        self._longest = self._step = Decimal(1)

    def add(self, bar: Bar) -> None:
        """Takes a bar into account."""
        self._first = self._first or bar.close
        for price in (bar.open, bar.high, bar.low, bar.close):
            # Without zeros at their ends, prices of as many places are all multiples of the step.
            if price.same_quantum(self._longest) and (
                self._written == self._finest or not EXACT.remainder(price, self._step)
            ):
                continue
            self._written = min(self._written, _exponent(price))
            self._finest = min(self._finest, _exponent(price.normalize()))
            self._longest, self._step = Decimal(1).scaleb(self._written), Decimal(1).scaleb(self._finest)

    @property
    def places(self) -> int | None:
        """With how many places a price tells nothing new: with those of the finest one, which has no zero at its end. None if
        that is not all there is to it."""
        return -self._written if self._written == self._finest and -_DIGITS < self._written < 0 else None

    def rules(self, symbol: str) -> SymbolRules:
        """The symbol's rules; MarketError if there was no bar."""
        if self._first is None:
            raise MarketError(f"there is no bar of {symbol} to read its steps off")
        exponent = max(self._written, min(self._finest, _exponent(tick_near(self._first))))
        return rules_near(symbol, self._first, Decimal(1).scaleb(exponent))


def milliseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def moment_of(time_ms: int) -> datetime:
    # timedelta, not fromtimestamp: exact, and free of the machine's time zone.
    return _EPOCH + timedelta(milliseconds=time_ms)


class _Moments:
    """The same for one time after another. Most are as far from the one before as that one was, and adding is fast."""

    def __init__(self) -> None:
        self._time_ms, self._moment = 0, _EPOCH
        self._since_ms, self._step = 0, timedelta(0)

    def of(self, time_ms: int) -> datetime:
        """The next one."""
        if (since_ms := time_ms - self._time_ms) != self._since_ms:
            self._since_ms, self._step = since_ms, timedelta(milliseconds=since_ms)
        self._time_ms, self._moment = time_ms, self._moment + self._step
        return self._moment


def _glance(
    form: _Form, texts: Sequence[str], before: int, steps: Mapping[str, Steps]
) -> tuple[str, Sequence[int]] | None:
    """The episode and the times of some lines' bars, if all are right for certain, are of one episode and tell no new step."""
    episode = form.episode(FileLine(0, texts[0].split(",")))
    digits = steps[episode].places
    found = _columns(form, texts, before, episode, digits) if digits else None
    return (episode, found.times) if found else None


class _Columns(NamedTuple):
    """The texts of some lines' open, high, low, close and volume, the first four as numbers, and the times in milliseconds."""

    times: list[int]
    texts: list[tuple[str, ...]]
    prices: Sequence[NDArray[np.float64]]


def _columns(form: _Form, texts: Sequence[str], before: int, episode: str, digits: int | None) -> _Columns | None:
    """What the lines hold, if all of them are of the episode, right for certain, and have so many digits after the point of a
    price (None: any number): binary floating point tells any two numbers of up to 15 digits apart as decimals do."""
    price = rf"[0-9]{{1,{_DIGITS - digits}}}\.[0-9]{{{digits}}}" if digits else _SHORT_PRICE
    rows = _plain(form.places, form.label, episode, price).findall("".join(texts))
    if len(rows) != len(texts):
        return None
    cells = dict(zip(sorted(form.places), zip(*rows, strict=True), strict=True))
    time, *rest = (cells[place] for place in form.places)
    times = [*map(int, time)]
    open_, high, low, close = prices = [_numbers(column, digits) for column in rest[:4]]
    in_order = (low > 0) & (low <= open_) & (open_ <= high) & (low <= close) & (close <= high)
    is_right = in_order.all() and all(map(int.__lt__, [before, *times], [*times, _END_MS]))
    return _Columns(times, rest, prices) if is_right else None


def _numbers(texts: Sequence[str], digits: int | None) -> NDArray[np.float64]:
    """The numbers as `float` reads them. With as many digits after the point they are read as whole numbers, in a fifth of the
    time: these and the power of ten fit into a double, so the quotient is rounded once, as by `float`."""
    if not digits:
        return np.array([*map(float, texts)])
    whole: NDArray[np.int64] = np.fromstring(",".join(texts).replace(".", ""), dtype=np.int64, sep=",")
    return whole / 10.0**digits


def _block(form: _Form, texts: Sequence[str], before: int) -> Block | None:
    """The bars of some lines, if all are right for certain and of one episode."""
    first = FileLine(0, texts[0].rstrip().split(","))
    episode = form.episode(first)
    try:
        digits = len(form.cells(first.cells)[1].partition(".")[2])
        alike = _columns(form, texts, before, episode, digits) if 0 < digits < _DIGITS else None
        found = alike or _columns(form, texts, before, episode, None)
    except (IndexError, ValueError):
        return None
    if found is None or form.volume != BASE:
        return None
    moments, values = _moments(found.times), (map(Decimal, column) for column in found.texts)
    bars = [
        assembled(Bar, {"open_time": time, "open": open_, "high": high, "low": low, "close": close, "volume": volume})
        for time, open_, high, low, close, volume in zip(moments, *values, strict=True)
    ]
    return Block(episode, bars, (np.array(found.times, dtype=np.int64), *found.prices, _numbers(found.texts[4], None)))


def _moments(times: Sequence[int]) -> Iterable[datetime]:
    of = _Moments().of
    return map(of, times)


def _parse(form: _Form, line: FileLine, before: datetime | None, moment: Callable[[int], datetime] = moment_of) -> Bar:
    path = form.path
    try:
        time_text, *prices, traded = form.cells(line.cells)
        time_ms, volume_there = int(time_text), Decimal(traded)
        # A short text has no more digits than a double holds.
        open_, high, low, close = [Decimal(text) if len(text) <= _DIGITS else _price(text) for text in prices]
        opened_at = moment(time_ms)
        in_range = (
            _LOWEST <= low <= open_ <= high <= _HIGHEST and low <= close <= high and ZERO <= volume_there <= _MOST
        )
        if not in_range and not all(map(Decimal.is_finite, (open_, high, low, close, volume_there))):
            raise ValueError("not a finite number")
    except (IndexError, ValueError, InvalidOperation, OverflowError) as error:
        raise MarketError(f"{path}, line {line.number}: {line.shown!r} is not a bar; expected {_EXPECTED}") from error
    facts = {"open_time": opened_at, "open": open_, "high": high, "low": low, "close": close, "volume": volume_there}
    bar = assembled(Bar, facts)
    if not (in_range and before and opened_at > before) and (problem := _problem(bar, time_ms, before)):
        raise MarketError(f"{path}, line {line.number}: {problem}; expected {_EXPECTED}")
    if form.volume == BASE:
        return bar
    # In a wide context, which must not fail on any number that a file may hold.
    return assembled(Bar, {**facts, "volume": EXACT.quantize(EXACT.divide(volume_there, close), VOLUME_STEP)})


def _price(text: str) -> Decimal:
    price = Decimal(text)
    return price if len(price.as_tuple().digits) <= _DIGITS else price.normalize(DOUBLE)


def _problem(bar: Bar, time_ms: int, before: datetime | None) -> str | None:
    if not 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high:
        return "prices must be above 0, with low the lowest and high the highest"
    if bar.low < _LOWEST or bar.high > _HIGHEST or bar.volume > _MOST:
        return f"prices must be from {_LOWEST} to {_HIGHEST}, and the volume at most {_MOST}"
    if bar.volume < 0:
        return "the volume is negative"
    if before and bar.open_time <= before:
        return f"the bar is not later than the one before it ({before.isoformat()})"
    if before is None and time_ms in _SECONDS:
        return f"{time_ms} looks like seconds, and open_time_ms are milliseconds"
    return None


def _exponent(price: Decimal) -> int:
    return int(price.as_tuple().exponent)


@cache
def _plain(places: Sequence[int], label: int | None, episode: str, price: str) -> re.Pattern[str]:
    """A line of this episode with a time, four such prices and a volume, none of them with more digits than a double holds."""
    cells = [r'[^,"\r\n]*'] * (max(*places, label or 0) + 1)
    for place, cell in zip(places, ("[0-9]{1,15}", *[price] * 4, r"[0-9]{1,15}(?:\.[0-9]*)?"), strict=True):
        cells[place] = f"({cell})"
    if label is not None:
        cells[label] = rf"[ \t]*{re.escape(episode)}[ \t]*"
    return re.compile(rf'^{",".join(cells)}(?:,[^"\r\n]*)?\r?$', re.MULTILINE)
