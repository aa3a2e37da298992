"""A file of bars. It is checked once in full before the replay, so that errors are reported before anything runs."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from activities.market.port import MarketError
from activities.market.replay import (
    Block,
    Steps,
    VolumeUnit,
    iter_blocks,
    iter_checked,
    iter_episodes,
    milliseconds,
    moment_of,
)
from domain.trading.market import Bar, SymbolRules
from replay.window import blocks_of

DEFAULT_INTERVAL = timedelta(minutes=1)


class Selection(NamedTuple):
    """Which bars of a file to replay: one episode, a span of time. None means no limit."""

    episode: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def takes(self, episode: str, bar: Bar) -> bool:
        """Whether the selection includes a bar."""
        return (
            (self.episode is None or episode == self.episode or episode.startswith(self.episode))
            and (self.since is None or bar.open_time >= self.since)
            and (self.until is None or bar.open_time < self.until)
        )


class Stretch(NamedTuple):
    """Bars that are replayed together: an episode of the file, or the whole file. `interval` is the time between the first two
    bars; `gaps` counts the longer intervals after it, and `longest_gap` is the longest.
    """

    episode: str
    rules: SymbolRules
    begin: datetime
    bars: int
    interval: timedelta
    gaps: int = 0
    longest_gap: timedelta = timedelta(0)


class BarsFile:
    """A file of bars of one symbol."""

    def __init__(self, path: Path, symbol: str, volume: VolumeUnit, selection: Selection) -> None:
        self.path = path
        self._symbol = symbol
        self._volume = volume
        self._selection = selection

    def stretches(self) -> list[Stretch]:
        """What there is to replay, from one pass over the file; MarketError where a line is wrong or nothing is taken."""
        steps: defaultdict[str, Steps] = defaultdict(Steps)
        found: defaultdict[str, _Survey] = defaultdict(_Survey)
        for episode, times in self._times(steps):
            found[episode].add(times)
        if not found:
            raise MarketError(f"{self.path}: no bar lies in the episode and the times that you asked for")
        # A name is a prefix of itself and perhaps of others; who gives one means that episode.
        names = [name for name in found if name == self._selection.episode] or list(found)
        return [found[episode].stretch(episode, steps[episode].rules(self._symbol)) for episode in names]

    def _times(self, steps: Mapping[str, Steps]) -> Iterator[tuple[str, Sequence[int]]]:
        """The episode of some bars in a row, and their times in milliseconds; `steps` is told of their prices."""
        if self._selection == Selection():
            yield from iter_checked(self.path, self._volume, steps)
            return
        for episode, bar in self._selected():
            steps[episode].add(bar)
            yield episode, [milliseconds(bar.open_time)]

    def blocks(self, episode: str) -> Iterator[Block]:
        """The bars of one episode."""
        if self._selection == Selection():
            return (block for block in iter_blocks(self.path, self._volume) if block.episode == episode)
        return blocks_of(bar for name, bar in self._selected() if name == episode)

    def _selected(self) -> Iterator[tuple[str, Bar]]:
        return (pair for pair in iter_episodes(self.path, self._volume) if self._selection.takes(*pair))


class _Survey:
    """The facts about a stretch, from one pass."""

    def __init__(self) -> None:
        self._first = self._before = 0
        self._interval: int | None = None
        self._bars = self._gaps = self._longest = 0

    def add(self, times: Sequence[int]) -> None:
        for time_ms in times:
            since = time_ms - self._before
            if not self._bars:
                self._first = time_ms
            elif self._interval is None:
                self._interval = since
            elif since > self._interval:
                self._gaps += 1
                self._longest = max(self._longest, since)
            self._before = time_ms
            self._bars += 1

    def stretch(self, episode: str, rules: SymbolRules) -> Stretch:
        interval = DEFAULT_INTERVAL if self._interval is None else timedelta(milliseconds=self._interval)
        longest = timedelta(milliseconds=self._longest)
        return Stretch(episode, rules, moment_of(self._first), self._bars, interval, self._gaps, longest)
