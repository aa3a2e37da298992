"""axe over every state of the page, in light and dark: nothing that it calls serious or critical."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe

from api.errors import ReportsUnavailable
from domain.desk.states import Mode, State
from domain.keys import Role
from domain.trading.assessment import Assessment, Measures, RiskMemory
from storage.database import DatabaseUnavailable
from tests.api.world import make_decision, make_observation
from tests.console.conftest import Console
from tests.console.test_page import position
from tests.storage.test_equity import a_point as an_equity_point
from workflows.gateway import CoordinatorSilent, TemporalUnreachable

HEAVY = ("serious", "critical")
ALL_RULES = {"resultTypes": ["violations"]}
# The scheme changes colours and nothing else, so that in the dark only they are looked at again.
RULES_ON_COLOURS = {**ALL_RULES, "runOnly": ["color-contrast", "link-in-text-block"]}
SCHEMES = {"light": ALL_RULES, "dark": RULES_ON_COLOURS}


# What is there in every state, and the dearest to look at: it has a colour of its own only where the page is stale.
ALIKE = {"exclude": [["#charts"], ["#limits"], ["#log"]]}


async def is_sound(console: Console, state: str, beside: dict[str, Any] | None = None) -> None:
    """Runs axe in both colour schemes, and without motion: a colour in between is nobody's. `beside`: what another state of
    the same page has shown to be sound."""
    for scheme, rules in SCHEMES.items():
        await console.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        # Half a megabyte, once a page.
        is_there = await console.page.evaluate("'axe' in window")
        axe = Axe("null") if is_there else Axe()
        found = (await axe.run(console.page, beside, rules)).response["violations"]
        heavy = [
            f"{violation['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
            for violation in found
            if violation["impact"] in HEAVY
            for node in violation["nodes"]
        ]
        assert heavy == [], f"{state}, {scheme}"


def fill(console: Console) -> None:
    """Everything that a page of a desk in the middle of its day shows."""
    now = datetime.now(UTC)
    measures = Measures(equity=Decimal(10_490), peak=Decimal(10_490), day_open=Decimal(10_000), leverage=Decimal("0.5"))
    held = {"assessment": Assessment(measures=measures, memory=RiskMemory()), "positions": [position("BTCUSDT")]}
    console.gateway.carried.observation = make_observation().model_copy(update=held)
    console.reports.points = [
        an_equity_point(0, 10_000 + number, time=now - timedelta(minutes=50 - number)) for number in range(50)
    ]
    console.reports.rows = [make_decision(1), make_decision(2, decision_type="control", summary="Paused by mia")]


async def test_a_page_without_a_key(console: Console) -> None:
    await console.open(key=None)
    await console.page.wait_for_selector("#signin-form")
    await is_sound(console, "signed out")
    await console.page.fill("#key", "wrong")
    await console.page.press("#key", "Enter")
    await console.says("#signin-problem", "Not authenticated")
    await is_sound(console, "refused")


@pytest.mark.parametrize("mode", [Mode.PAPER, pytest.param(Mode.LIVE, marks=pytest.mark.thorough)])
async def test_a_desk_that_runs_is_paused_and_killed(console: Console, mode: Mode) -> None:
    fill(console)
    console.gateway.carried.mode = mode
    await console.open()
    await console.shows("running")
    await console.says("#charts", "Equity: last")
    await is_sound(console, "running")
    console.gateway.carried.state = State.PAUSED
    await console.shows("paused")
    await is_sound(console, "paused", ALIKE)
    await console.hold(1_100)
    await console.says("#kill-progress", "confirmed by the venue")
    await is_sound(console, "killed", ALIKE)


async def test_a_page_that_is_stale_and_a_kill_that_nobody_confirmed(console: Console) -> None:
    fill(console)
    await console.open()
    await console.shows("running")
    console.gateway.query_error = CoordinatorSilent("no worker answered for the coordinator of desk 'main'")
    await console.says("#stale", "No worker answered")
    await is_sound(console, "stale")
    console.gateway.signal_error = TemporalUnreachable("Temporal cannot be reached")
    await console.hold(1_100)
    await console.says("#kill-news", "NOT SENT")
    await is_sound(console, "a kill that was not sent", ALIKE)


async def test_a_viewer_and_reports_that_cannot_be_read(console: Console) -> None:
    fill(console)
    console.reports.error = ReportsUnavailable(DatabaseUnavailable("away"))
    await console.open(console.with_key("auditor", Role.VIEWER))
    await console.shows("running")
    await is_sound(console, "viewer")
