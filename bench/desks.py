"""Whole desks for the bench, each with processes, ports and a folder of its own."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.machine import STARTS_WITHIN_SECONDS
from tests.deploy.dev_stack import wait_until
from tests.e2e.live import Live
from tests.e2e.test_real_venue import Venue

LIVE = {"AIS_MODE": "live", "AIS_ENABLE_LIVE_TRADING": "true"}


@contextmanager
def a_desk(*flags: str, **changed: str) -> Iterator[Live]:
    """A running `ais dev`, with these flags and settings."""
    with tempfile.TemporaryDirectory() as folder:
        live = Live(Path(folder).resolve() / "desk")
        live.stack.settings = changed
        try:
            live.start(*flags, ready=False)
            live.stack.wait_for_line("ready", STARTS_WITHIN_SECONDS)
            yield live
        finally:
            live.clean_up()


@contextmanager
def a_live_desk(symbols: Sequence[str], cycle_seconds: int, **changed: str) -> Iterator[tuple[Live, Venue]]:
    """One in live mode at a fake exchange, which is a process of its own; it has observed the exchange."""
    venue = Venue()
    try:
        venue.control("mark", **dict.fromkeys(symbols, "100"))
        flags = ("--symbols", ",".join(symbols), "--cycle-seconds", str(cycle_seconds))
        with a_desk(*flags, **LIVE, **venue.settings, **changed) as live:
            wait_until(
                lambda: bool(live.coordinator().get("observation")), "the venue is observed", STARTS_WITHIN_SECONDS
            )
            yield live, venue
    finally:
        venue.stop()
