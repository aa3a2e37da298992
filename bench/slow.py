"""How soon a live desk is itself again after the exchange was slow, refused, or filled by halves.

Each sample is a kill of a real `ais dev` at a fake exchange, and a restart after it. The floor is the same kill at an exchange
that is well.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from bench.desks import a_live_desk
from bench.subject import Pair, Remark, Steps, Subject
from tests.deploy.dev_stack import wait_until
from tests.e2e.live import Live
from tests.e2e.test_real_venue import Venue

SAMPLES = 5
FEW_SYMBOLS, FEW_SECONDS, CYCLE_SECONDS, CYCLES = 5, 5, 10, 6
SLOW_SECONDS, OUTAGE_SECONDS = 4.0, 8.0
QUANTITY = "0.512"


class SlowDesk:
    """A live desk that flattens when it is killed, and its exchange."""

    def __init__(self, live: Live, venue: Venue, symbols: list[str]) -> None:
        self._live, self._venue, self._symbols = live, venue, symbols

    def well(self) -> float:
        """Seconds from a kill until it is verified, at an exchange that is well."""
        return self._killed("verified_at", datetime.now(UTC))

    def after_an_outage(self) -> float:
        """The same from the moment at which an exchange that took four seconds for eight is well again."""
        self._venue.control("faults", slow={"*": SLOW_SECONDS})
        began = time.monotonic()
        self._live.kill("bench")
        time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - began)))
        self._venue.control("faults", slow={})
        return self._until("verified_at", datetime.now(UTC))

    def after_refusals(self) -> float:
        """The same with one 418 on a reading before it, and one 503 on a cancel."""
        self._venue.control("rest", symbol=self._symbols[0])
        self._venue.control("faults", errors={"get_klines": 418}, errors_left=1)
        time.sleep(FEW_SECONDS + 2)
        self._venue.control("faults", errors={"cancel_all_orders": 503}, errors_left=1)
        try:
            return self._killed("verified_at", datetime.now(UTC))
        finally:
            self._venue.control("faults", errors={}, errors_left=None)

    def flattened(self, part: str | None) -> Callable[[], float]:
        """Seconds from a kill until a position is closed, where each order fills by this part of it."""

        def sample() -> float:
            self._venue.control("habits", fills_part=part)
            self._venue.control("position", **{self._symbols[1]: QUANTITY})
            wait_until(lambda: bool(self._live.coordinator()["observation"]["positions"]), "the position is read", 60)
            seconds = self._killed("flat_at", datetime.now(UTC))
            assert not any(Decimal(held) for held in self._venue.state["positions"].values())
            return seconds

        return sample

    def cycle_seconds(self) -> float:
        """Seconds a cycle that has decided, over a minute."""
        began = datetime.now(UTC)
        time.sleep(CYCLES * CYCLE_SECONDS)
        rows = [row for row in self._live.decisions() if datetime.fromisoformat(row["timestamp"]) > began]
        failed = [row for row in rows if "the decision failed" in row["summary"] or "not observed" in row["summary"]]
        cycles = sum(int(row.get("cycles", 1)) for row in rows) - len(failed)
        return CYCLES * CYCLE_SECONDS / cycles

    def _killed(self, field: str, since: datetime) -> float:
        self._live.kill("bench")
        return self._until(field, since)

    def _until(self, field: str, since: datetime) -> float:
        """Seconds, by the kill's own record; then the desk runs again."""
        wait_until(lambda: bool(self._kill.get(field)), field, 180)
        late = datetime.fromisoformat(self._kill[field]) - since
        self._live.until_quiet()
        wait_until(lambda: bool(self._kill.get("verified_at")), "verified", 60)
        done = self._live.ais("restart", "--yes", "--reason", "bench")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: self._live.state == "running", "running", 60)
        return max(0.0, late / timedelta(seconds=1))

    @property
    def _kill(self) -> dict[str, Any]:
        return self._live.coordinator().get("kill") or {}


def pairs(count: int) -> Steps:
    """Kills of a desk with few symbols, then the cycles of one with many."""
    symbols = [f"S{number:02}USDT" for number in range(count)]
    with a_live_desk(symbols[:FEW_SYMBOLS], FEW_SECONDS, AIS_KILL_FLATTENS="true") as (live, venue):
        desk = SlowDesk(live, venue, symbols)
        what = "from well again to verified, after 8 s in which calls took 4 s"
        yield Pair(what, desk.after_an_outage, desk.well, SAMPLES)
        yield Pair(
            "a kill verified, one 418 on a reading, one 503 on a cancel", desk.after_refusals, desk.well, SAMPLES
        )
        halves, whole = desk.flattened("0.5"), desk.flattened(None)
        what = "flattened by orders that fill by half"
        yield Pair(what, halves, whole, SAMPLES, floor_name="orders that fill whole")
    with a_live_desk(symbols, CYCLE_SECONDS) as (live, venue):
        desk = SlowDesk(live, venue, symbols)
        clock = f"a cycle every {CYCLE_SECONDS} s"
        what = f"{count} symbols, seconds a decided cycle"
        row = yield Pair(what, desk.cycle_seconds, lambda: CYCLE_SECONDS, 1, floor_name=clock, warm_up=0)
        assert row
        yield Remark(f"of {CYCLES} cycles of {count} symbols, {CYCLES * CYCLE_SECONDS / row.ours[0]:.0f} decided")


SUBJECT = Subject(
    "slow", "a desk at an exchange that is slow, refuses, fills by halves", "the same kill at one that is well",
    pairs, 60, "symbols",
)  # fmt: skip
