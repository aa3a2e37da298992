"""What bars came to: one whole cycle, or a row of quiet bars."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from domain.accounting import Fill, LedgerEntry
from domain.desk.states import State
from domain.trading.assessment import Measures
from domain.trading.decisions import Decision
from domain.trading.market import Bar, Observation
from domain.values import assembled


class Cycle(NamedTuple):
    """The result of one bar."""

    bar: Bar
    observed: Callable[[], Observation]
    measures: Measures
    state: State
    decisions: list[Decision]
    fills: list[Fill]
    entries: list[LedgerEntry]

    @property
    def observation(self) -> Observation:
        """The reading after the bar. If nothing happened, it is built only on request."""
        return self.observed()


class QuietBars(NamedTuple):
    """Bars in a row in which only the price changes. Their rows differ only in id and time; a killed desk writes none."""

    bars: Sequence[Bar]
    seen: Callable[[int], Observation]
    measures: Sequence[Measures]
    state: State
    row: Decision | None
    ids: Sequence[str]

    @property
    def observation(self) -> Observation:
        """The reading after the last of them."""
        return self.seen(len(self.bars) - 1)

    @property
    def rows(self) -> list[Decision]:
        """A row of each bar."""
        alike = self.row
        return [row_of(alike, id_, bar) for id_, bar in zip(self.ids, self.bars, strict=True)] if alike else []

    def cycles(self) -> Iterator[Cycle]:
        """The same, bar by bar."""
        rows = [[row] for row in self.rows] or [[]] * len(self.bars)
        for number, (bar, measures) in enumerate(zip(self.bars, self.measures, strict=True)):
            yield Cycle(bar, partial(self.seen, number), measures, self.state, rows[number], [], [])


def row_of(alike: Decision, own_id: str, bar: Bar) -> Decision:
    """The row of a bar that is like another one but for its id and time."""
    return assembled(Decision, {**vars(alike), "decision_id": own_id, "timestamp": bar.open_time})
