"""Reading the books leaves enough of the exchange's weight for everything else, a kill's cancels above all."""

from datetime import UTC, datetime, timedelta
from typing import Any

from activities.venues.aster.allowance import BURST, PER_SECOND, WEIGHTS, Allowance
from activities.venues.aster.statements import PAGE_ROWS, Statements

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
# Of the 2,400 a minute, the part that the books may use.
MOST_A_MINUTE = 1_100


class Minutes:
    """A clock that only sleeping moves on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class BusyLedger:
    """An exchange's ledger with a row in every second. Remembers when it was asked."""

    def __init__(self, clock: Minutes) -> None:
        self.clock = clock
        self.asked: list[float] = []

    async def call(self, tool: str, symbol: str | None = None, **arguments: Any) -> object:
        assert tool == "get_income"
        self.asked.append(self.clock.now)
        start, end = arguments["start_time"], arguments["end_time"]
        return [{"time": str(at)} for at in range(start, end, 1000)][:PAGE_ROWS]

    async def close(self) -> None:
        return


async def test_a_long_ledger_is_read_within_the_share() -> None:
    """Found to be false: a month of a busy account used up a minute's weight in seconds."""
    clock = Minutes()
    ledger = BusyLedger(clock)
    pages = Statements(ledger, Allowance(clock, clock.sleep)).income(BEGAN, BEGAN + timedelta(hours=12))
    assert sum([len(page.rows) async for page in pages]) >= 12 * 3600
    assert len(ledger.asked) * WEIGHTS["get_income"] > MOST_A_MINUTE
    for begin in ledger.asked:
        used = sum(WEIGHTS["get_income"] for at in ledger.asked if begin <= at < begin + 60)
        assert used <= WEIGHTS["get_income"] + BURST + 60 * PER_SECOND <= MOST_A_MINUTE


async def test_an_ordinary_round_waits_for_nothing() -> None:
    clock = Minutes()
    ledger = BusyLedger(clock)
    statements = Statements(ledger, Allowance(clock, clock.sleep))
    for _ in range(100):
        assert [page.whole async for page in statements.income(BEGAN, BEGAN + timedelta(minutes=10))] == [True]
    assert clock.now == 0
