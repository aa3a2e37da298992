"""Which venue a worker gets, and what stops one that is not fully set up."""

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog

import settings
import worker
from activities.market.port import MarketError
from activities.metrics import WorkerMetrics
from activities.venues.aster.venue import AsterVenue
from activities.venues.build import build_venue
from activities.venues.paper import PaperVenue
from activities.venues.shadow import ShadowVenue
from settings.modes import NotAllowed, missing_for
from storage.database import Database
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import make_venue, serving

ROOT = Path(__file__).parents[2]
LONG_KEY = "r8Jw_2kd8s7Hqp1Zx93bNMt-r8Jw_2kd8s7Hqp1Zx93bNMt"
LIVE = {
    "AIS_MODE": "live",
    "AIS_ENABLE_LIVE_TRADING": "true",
    "AIS_ASTER_ACCOUNT_ID": "main",
    "AIS_API_KEY": LONG_KEY,
}


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A worker's configuration under a few variables and no others."""
    for name in [name for name in os.environ if name.startswith("AIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIS_DATABASE_URL", "postgresql://nobody:nothing@127.0.0.1:1/none")

    def load(variables: dict[str, str]) -> worker.Config:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return worker.Config.load()

    return load


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({}, []),
        ({"AIS_MODE": "shadow"}, ["AIS_ASTER_ACCOUNT_ID"]),
        ({"AIS_MODE": "shadow", "AIS_ASTER_ACCOUNT_ID": "main"}, []),
        ({"AIS_MODE": "shadow", "AIS_ASTER_ACCOUNT_ID": " "}, ["AIS_ASTER_ACCOUNT_ID"]),
        (
            {"AIS_MODE": "live"},
            [
                "AIS_ASTER_ACCOUNT_ID",
                "AIS_ENABLE_LIVE_TRADING=true",
                "an AIS_API_KEY of 32 characters or more",
            ],
        ),
        (LIVE | {"AIS_API_KEY": LONG_KEY[:31]}, ["an AIS_API_KEY of 32 characters or more"]),
        (LIVE | {"AIS_ENABLE_LIVE_TRADING": "false"}, ["AIS_ENABLE_LIVE_TRADING=true"]),
        (LIVE, []),
    ],
)
def test_what_a_mode_needs_is_named_whole(configured: Any, variables: dict[str, str], missing: list[str]) -> None:
    assert missing_for(configured(variables)) == missing


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, PaperVenue),
        ({"AIS_MARKET": "aster"}, PaperVenue),
        ({"AIS_MODE": "shadow", "AIS_ASTER_ACCOUNT_ID": "main"}, ShadowVenue),
        (LIVE, AsterVenue),
    ],
)
def test_each_mode_has_its_venue(configured: Any, database: Database, variables: dict[str, str], kind: type) -> None:
    assert type(build_venue(worker.plan_of(configured(variables)), database, WorkerMetrics("main"))) is kind


def test_the_real_market_brings_its_own_funding(configured: Any, database: Database, tmp_path: Path) -> None:
    rates = tmp_path / "rates.csv"
    rates.write_text("funding_time_ms,funding_rate\n0,0.0001\n")
    config = configured({"AIS_MARKET": "aster", "AIS_PAPER_FUNDING": str(rates)})
    with pytest.raises(
        MarketError, match="AIS_PAPER_FUNDING: AIS_MARKET=aster brings its own funding rates; leave it out"
    ):
        build_venue(worker.plan_of(config), database, WorkerMetrics("main"))


def test_an_address_beyond_this_machine_is_warned_about(configured: Any, database: Database) -> None:
    config = configured(LIVE | {"AIS_ASTER_MCP": "http://aster-mcp:9002/mcp"})
    with structlog.testing.capture_logs() as logs:
        build_venue(worker.plan_of(config), database, WorkerMetrics("main"))
    assert any("whoever reaches it can trade" in entry["event"] for entry in logs)


def test_a_worker_that_is_not_set_up_for_live_ends_with_one_message() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIS_")}
    environment |= {"AIS_MODE": "live", "AIS_DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:1/none"}
    done = subprocess.run(
        [sys.executable, "worker.py"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "AIS_MODE=live needs AIS_ASTER_ACCOUNT_ID; AIS_ENABLE_LIVE_TRADING=true; an AIS_API_KEY of 32 characters or more"
    )


async def test_live_starts_on_a_one_way_account_and_refuses_what_is_certainly_wrong() -> None:
    fake = FakeServer()
    async with serving(fake) as base:
        venue = make_venue(f"{base}/mcp")
        await worker.check_venue(venue)
        fake.exchange.habits.hedge = True
        with pytest.raises(NotAllowed, match="hedge mode: switch it to one-way"):
            await worker.check_venue(venue)
        fake.exchange.habits.hedge = False
        for status in (401, 403):
            fake.faults.errors = {"get_positions": status}
            with pytest.raises(NotAllowed, match=f"HTTP {status}"):
                await worker.check_venue(venue)
        await venue.close()


@pytest.mark.parametrize("status", [400, 404, 408, 418, 429, 500, 503, 0])
async def test_no_answer_that_can_pass_by_itself_stops_a_worker(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The incident behind it: the exchange's clock was 20 s ahead (400), and no worker started in the middle of a kill."""
    monkeypatch.setattr(worker, "VENUE_SECONDS", 0.5)
    fake = FakeServer()
    async with serving(fake) as base:
        venue = make_venue(f"{base}/mcp")
        fake.faults.errors = {"get_positions": status}
        with caplog.at_level(logging.WARNING), structlog.testing.capture_logs() as logs:
            await worker.check_venue(venue)
        (why,) = (entry["why"] for entry in logs if entry["event"].startswith("starting without the venue"))
        assert ("compare the clocks" in why) == (status == 400)
        await venue.close()


async def test_a_single_answer_that_refuses_the_key_stops_no_worker() -> None:
    fake = FakeServer()
    async with serving(fake) as base:
        venue = make_venue(f"{base}/mcp")
        fake.faults.errors, fake.faults.errors_left = {"get_positions": 403}, 1
        await worker.check_venue(venue)
        await venue.close()


async def test_a_venue_that_does_not_answer_stops_no_worker_since_a_kill_needs_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "VENUE_SECONDS", 0.3)
    venue = make_venue("http://127.0.0.1:1/mcp", seconds=0.2)
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(180):
            await worker.check_venue(venue)
    await venue.close()


def test_the_account_is_never_shown(configured: Any) -> None:
    config = configured(LIVE | {"AIS_ASTER_ACCOUNT_ID": "my-secret-account"})
    assert "my-secret-account" not in repr(config)
    shown = [row for row in settings.catalogue() if row.variable == "AIS_ASTER_ACCOUNT_ID"]
    assert [row.secret for row in shown] == [True]
