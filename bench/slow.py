"""`make bench`, fourth part: how soon a live desk is itself again after the exchange was slow, refused, or filled by halves.

Each row is a kill, or cycles, of a real `ais dev` at a fake server in a process of its own; what is allowed stands beside it.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.deploy.dev_stack import wait_until
from tests.e2e.live import Live
from tests.e2e.test_real_venue import Venue

SYMBOLS = [f"S{number:02}USDT" for number in range(60)]
CYCLE_SECONDS = 10
SLOW_SECONDS, OUTAGE_SECONDS = 4.0, 8.0


def kill_of(live: Live) -> dict[str, Any]:
    """The kill that holds; empty where there is none, or nobody answers."""
    found: dict[str, Any] = live.coordinator().get("kill") or {}
    return found


def tell(what: str, figure: str, allowed: str) -> None:
    """One row."""
    print(f"{what:<62} {figure:>22}   allowed: {allowed}", flush=True)


def until(kill: Callable[[], dict[str, Any]], field: str, seconds: float = 180) -> datetime:
    """When the kill was as asked, by its own record."""
    wait_until(lambda: bool(kill().get(field)), field, seconds)
    return datetime.fromisoformat(kill()[field])


def restarted(live: Live) -> None:
    """Running again, and a cycle has been made."""
    live.until_quiet()
    assert live.ais("restart", "--yes", "--reason", "bench").returncode == 0
    wait_until(lambda: live.state == "running", "running", 60)


def sixty_symbols(live: Live) -> None:
    """Of the cycles of a minute, those that have decided."""
    began = datetime.now(UTC)
    time.sleep(6 * CYCLE_SECONDS)
    rows = [row for row in live.decisions() if datetime.fromisoformat(row["timestamp"]) > began]
    failed = [row for row in rows if "the decision failed" in row["summary"] or "not observed" in row["summary"]]
    for row in failed:
        print(f"  {row['summary']}")
    cycles = sum(row.get("cycles", 1) for row in rows)
    tell(f"60 symbols, cycle {CYCLE_SECONDS} s", f"{cycles} decided, {len(failed)} failed", "all decide")


def slow_exchange(live: Live, venue: Venue) -> None:
    """A kill while the exchange answers after four seconds; it is well again after eight."""
    venue.control("faults", slow={"*": SLOW_SECONDS})
    began = time.monotonic()
    live.kill("bench")
    time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - began)))
    venue.control("faults", slow={})
    well = datetime.now(UTC)
    late = until(lambda: kill_of(live), "verified_at") - well
    print(f"  {kill_of(live)['progress']}; well at {well:%H:%M:%S.%f}")
    tell("kill -> verified, after 8 s of an exchange that took 4 s", f"{late / timedelta(seconds=1):.1f} s", "5 s")
    restarted(live)


def stray_refusals(live: Live, venue: Venue) -> None:
    """One 418 on a reading, then a kill, and one 503 on a cancel."""
    venue.control("rest", symbol=SYMBOLS[0])
    venue.control("faults", errors={"get_klines": 418}, errors_left=1)
    time.sleep(CYCLE_SECONDS + 2)
    venue.control("faults", errors={"cancel_all_orders": 503}, errors_left=1)
    began = datetime.now(UTC)
    live.kill("bench")
    late = until(lambda: kill_of(live), "verified_at") - began
    tell("kill -> verified, one 418 on a reading, one 503 on a cancel", f"{late / timedelta(seconds=1):.1f} s", "10 s")
    venue.control("faults", errors={}, errors_left=None)
    restarted(live)


def halves(live: Live, venue: Venue) -> None:
    """A kill that flattens, where every order fills by half."""
    venue.control("position", **{SYMBOLS[1]: "0.512"})
    venue.control("habits", fills_part="0.5")
    wait_until(lambda: bool((live.coordinator()["observation"] or {})["positions"]), "the position is read", 60)
    sent = venue.state["calls"].get("create_order", 0)
    began = datetime.now(UTC)
    live.kill("bench")
    late = until(lambda: kill_of(live), "flat_at") - began
    orders, seconds = venue.state["calls"]["create_order"] - sent, late / timedelta(seconds=1)
    assert not any(Decimal(held) for held in venue.state["positions"].values())
    tell("flatten, every order filled by half", f"{orders} orders in {seconds:.1f} s", f"{orders} s")
    venue.control("habits", fills_part=None)


@contextlib.contextmanager
def a_desk(symbols: list[str], cycle_seconds: int) -> Iterator[tuple[Live, Venue]]:
    """A live desk that flattens when it is killed."""
    with tempfile.TemporaryDirectory() as folder:
        venue, live = Venue(), Live(Path(folder).resolve() / "desk")
        venue.control("mark", **dict.fromkeys(symbols, "100"))
        mode = {"AIS_MODE": "live", "AIS_ENABLE_LIVE_TRADING": "true", "AIS_KILL_FLATTENS": "true"}
        live.stack.settings = mode | venue.settings
        try:
            live.start("--symbols", ",".join(symbols), "--cycle-seconds", str(cycle_seconds))
            wait_until(lambda: bool(live.coordinator().get("observation")), "the venue is observed", 60)
            yield live, venue
        finally:
            live.clean_up()
            venue.stop()


def main() -> None:
    """All rows."""
    with a_desk(SYMBOLS[:5], 5) as (live, venue):
        slow_exchange(live, venue)
        stray_refusals(live, venue)
        halves(live, venue)
    with a_desk(SYMBOLS, CYCLE_SECONDS) as (live, _):
        sixty_symbols(live)


if __name__ == "__main__":
    main()
