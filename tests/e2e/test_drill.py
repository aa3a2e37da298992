"""A kill drill on paper, as `ais dev` is out of the box: orders rest, a pause cancels none of them, a kill cancels them all."""

import pytest

from tests.deploy.dev_stack import wait_until
from tests.e2e.live import Live

pytestmark = pytest.mark.long

OPEN = "SELECT count(*) FROM paper.orders WHERE status = 'open'"
CANCELS_OF_ALL = "SELECT count(*) FROM instructions WHERE tool LIKE 'cancel%all_orders'"


def resting_line(live: Live) -> str:
    """What `ais status` says of resting orders."""
    lines = live.ais("status").stdout.splitlines()
    return next(line for line in lines if line.startswith("resting orders")).removeprefix("resting orders").strip()


def until_orders_rest(live: Live) -> None:
    """While a quote is replaced none may rest for a moment."""
    wait_until(lambda: "(quoter, ord_" in resting_line(live), "orders rest")


def test_a_drill_has_orders_to_cancel_out_of_the_box(live: Live) -> None:
    live.stack.agents = None
    live.start("--cycle-seconds", "1")
    until_orders_rest(live)
    assert live.post("/control/pause").status_code == 200
    paused = live.coordinator()["cycle_number"]
    wait_until(lambda: live.coordinator()["cycle_number"] > paused + 2, "cycles go on")
    assert live.stack.sql(CANCELS_OF_ALL) == [(0,)]
    assert live.post("/control/resume").status_code == 200

    until_orders_rest(live)
    assert live.kill("drill").status_code == 200
    live.until_quiet()
    wait_until(lambda: bool(live.coordinator()["kill"]["verified_at"]), "verified")
    assert live.coordinator()["resting_orders"] == []
    assert resting_line(live) == "none"
    assert live.stack.sql(OPEN) == [(0,)]
    assert live.stack.sql(CANCELS_OF_ALL) == [(4,)]
