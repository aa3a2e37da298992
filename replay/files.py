"""A file of bars. It is checked once in full before the replay, so that errors are reported before anything runs."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from activities.market.port import MarketError
from activities.market.replay import Steps, VolumeUnit, iter_episodes
from domain.trading.market import Bar, SymbolRules

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
        """What there is to replay, from one pass over the file. Raises MarketError if a line is wrong or no bar is selected."""
        found: dict[str, _Survey] = {}
        for episode, bar in self._selected():
            if (survey := found.get(episode)) is None:
                survey = found[episode] = _Survey()
            survey.add(bar)
        if not found:
            raise MarketError(f"{self.path}: no bar lies in the episode and the times that you asked for")
        return [survey.stretch(episode, self._symbol) for episode, survey in found.items()]

    def bars(self, episode: str) -> Iterator[Bar]:
        """The bars of one episode."""
        return (bar for name, bar in self._selected() if name == episode)

    def _selected(self) -> Iterator[tuple[str, Bar]]:
        pairs = iter_episodes(self.path, self._volume)
        if self._selection == Selection():
            return pairs
        return (pair for pair in pairs if self._selection.takes(*pair))


class _Survey:
    """The facts about a stretch, from one pass."""

    def __init__(self) -> None:
        self._steps = Steps()
        self._first: Bar | None = None
        self._before: Bar | None = None
        self._interval: timedelta | None = None
        self._count = self._gaps = 0
        self._longest = timedelta(0)

    def add(self, bar: Bar) -> None:
        self._steps.add(bar)
        if self._before is not None:
            since = bar.open_time - self._before.open_time
            if self._interval is None:
                self._interval = since
            elif since > self._interval:
                self._gaps += 1
                self._longest = max(self._longest, since)
        else:
            self._first = bar
        self._before = bar
        self._count += 1

    def stretch(self, episode: str, symbol: str) -> Stretch:
        rules, interval = self._steps.rules(symbol), self._interval or DEFAULT_INTERVAL
        assert self._first is not None
        return Stretch(episode, rules, self._first.open_time, self._count, interval, self._gaps, self._longest)
