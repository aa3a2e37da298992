"""A paper desk that traded, was refused and was killed shows every metric that is promised, with exactly its labels."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from temporalio.client import Client
from temporalio.worker import Worker

from activities import metrics
from activities.act import ActActivities, CoordinatorState
from activities.agents.catalogue import InstalledAgent
from activities.agents.runner import InlineAgents
from activities.calls import CycleSummary, Scope
from activities.market.funding import FundingTable
from activities.market.replay import ReplayMarket
from activities.metrics import VenueFollower, WorkerMetrics
from activities.observe import ObserveActivities
from activities.record import RecordActivities
from activities.venues.paper import PaperVenue
from domain.desk.states import Mode
from domain.paper.book import Terms
from domain.risk.limits import Limits
from storage.database import Database
from tests.api.test_real_coordinator import api
from tests.replay.builders import BTC, D, liquid, made_bars, written
from tests.workflows.world import carried
from worker import _methods, new_id
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway
from workflows.patience import TASK_TIMEOUT

ON_THE_API = {
    "ais_coordinator_state": ["desk", "state"],
    "ais_commands_total": ["command", "desk", "outcome"],
    "ais_command_seconds": ["command"],
    "ais_http_requests_total": ["method", "route", "status"],
    "ais_http_request_seconds": ["method", "route", "status"],
}
ON_THE_WORKER = {
    "ais_kill_switch_triggers_total": ["desk", "source"],
    "ais_kill_to_quiet_seconds": ["desk"],
    "ais_cycle_seconds": ["desk"],
    "ais_cycle_age_seconds": ["desk"],
    "ais_decisions_total": ["decision_type", "desk", "risk_passed"],
    "ais_risk_rejections_total": ["desk", "guard"],
    "ais_instructions_total": ["desk", "outcome", "tool"],
    "ais_instructions_open": ["desk"],
    "ais_pnl": ["desk"],
    "ais_nav": ["desk"],
    "ais_exposure": ["desk"],
    "ais_drawdown": ["desk"],
    "ais_leverage": ["desk"],
    "ais_agent_latency_seconds": ["agent_id"],
    "ais_signals_total": ["agent_id", "direction"],
    "ais_signals_approved_total": [],
    "ais_signals_rejected_total": ["reason"],
    "ais_orders_submitted_total": ["side", "symbol"],
    "ais_orders_filled_total": ["symbol"],
    "ais_paper_fills_total": ["symbol"],
    "ais_aster_latency_seconds": ["tool"],
    "ais_aster_errors_total": ["tool"],
    "ais_aster_data_age_seconds": ["data_type"],
}
BUYER = "tests.replay.buyer:buy_and_hold"
LIMITS = Limits(max_orders_per_minute=2, max_data_age_seconds=3_600)


class PaperDesk:
    """A coordinator on bars of a file, with everything that a worker has, and its API."""

    def __init__(self, client: Client, url: str, file: Path, name: str, follow: VenueFollower | None = None) -> None:
        self.client, self.name = client, name
        self.database = Database(url, application_name="ais-metrics-test")
        self.gateway, self.instruments = DeskGateway(client, name, patience=60), WorkerMetrics(name, follow=follow)
        market, funding = ReplayMarket({BTC: file}), FundingTable(D("0.0001"))
        terms = Terms(fee_bps=D(4), slippage_bps=D(2))
        self.venue = PaperVenue(self.database, market, name, balance=D(100_000), terms=terms, funding=funding)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        scope, agents = Scope(desk=self.name, mode=Mode.PAPER), InlineAgents([InstalledAgent("buyer", BUYER)])
        observing = ObserveActivities(scope, self.venue, self.database, agents, self.instruments, new_id)
        acting = ActActivities(scope, self.venue, self.database, self._ask, self.instruments)
        recording = RecordActivities(scope, self.database, self.instruments)
        activities = [*_methods(observing), *_methods(acting), *_methods(recording)]
        queue, own = f"q-{self.name}", names.activity_queue(self.name, Mode.PAPER.value)
        started = carried(self.name, limits=LIMITS, cycle_seconds=0.05, search_attributes=False)
        async with (
            Worker(self.client, task_queue=queue, workflows=[Coordinator]),
            Worker(self.client, task_queue=own, activities=activities),
        ):
            id_ = names.workflow_id(self.name)
            handle = await self.client.start_workflow(
                Coordinator.run, started, id=id_, task_queue=queue, task_timeout=TASK_TIMEOUT
            )
            yield
            await handle.terminate("the test is over")

    async def _ask(self) -> CoordinatorState:
        status = await self.gateway.status()
        return CoordinatorState(status.state, Limits.model_validate(status.limits))

    def text(self) -> str:
        return generate_latest(self.instruments.registry).decode()

    def close(self) -> None:
        self.database.close()

    async def until(self, *wanted: str) -> None:
        """Until each of these samples is there."""
        until = time.monotonic() + 60
        while missing := [sample for sample in wanted if sample not in self.text()]:
            assert time.monotonic() < until, f"{missing} in {self.text()}"
            await asyncio.sleep(0.05)


def labels_of(text: str) -> dict[str, list[str]]:
    """Every metric that has a sample, and the labels that its samples carry."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[name] = sorted(sample.labels.keys() - {"le"})
    return found


@pytest.fixture
def desk(temporal: Client, database_url: str, tmp_path: Path) -> Iterator[PaperDesk]:
    made = PaperDesk(temporal, database_url, written(tmp_path / "bars.csv", liquid(made_bars(2_000))), "metered")
    yield made
    made.close()


async def test_every_metric_that_is_promised_is_there_with_its_labels(desk: PaperDesk, temporal: Client) -> None:
    async with desk.running(), api(temporal, desk.name) as client:
        await desk.until("ais_orders_filled_total{", "ais_risk_rejections_total{")
        assert (await client.post("/control/kill-switch")).status_code == 200
        await desk.until(
            f'ais_kill_to_quiet_seconds_count{{desk="{desk.name}"}} 1.0',
            f'ais_kill_switch_triggers_total{{desk="{desk.name}",source="operator"}} 1.0',
        )
        public, private = labels_of((await client.get("/metrics")).text), labels_of(desk.text())
        await nothing_is_left_after(client)

    assert {name: public.get(name) for name in ON_THE_API} == ON_THE_API
    assert {name: private.get(name) for name in ON_THE_WORKER} == ON_THE_WORKER
    assert not public.keys() & private.keys(), "money is on the worker's own port alone"
    ages = {kind for kind in ("ticker", "positions", "book") if f'data_type="{kind}"' in desk.text()}
    assert ages == {"ticker", "positions", "book"}


async def nothing_is_left_after(client: httpx.AsyncClient) -> None:
    """What is open of a kill, and unwritten rows, come down to zero."""
    async with asyncio.timeout(180):
        while True:
            text = (await client.get("/metrics")).text
            if 'ais_kill_outstanding{desk="metered"} 0.0' in text and 'ais_unwritten_rows{desk="metered"} 0.0' in text:
                return
            await asyncio.sleep(0.05)


def test_ages_grow_although_this_machines_clock_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The alert for a desk whose cycles have stopped came as much later."""
    steady = 100.0
    monkeypatch.setattr(metrics, "time", SimpleNamespace(monotonic=lambda: steady))
    measured, ahead = WorkerMetrics("main"), datetime.now(UTC) + timedelta(hours=1)
    measured.cycle_completed(CycleSummary(number=1, ended_at=ahead, seconds=1, open_instructions=0))
    measured.venue_data("positions", ahead)
    measured.books_read(ahead, 0, 0)
    steady += 301
    for name, labels in (
        ("ais_cycle_age_seconds", {"desk": "main"}),
        ("ais_aster_data_age_seconds", {"data_type": "positions"}),
        ("ais_books_age_seconds", {"desk": "main"}),
    ):
        assert measured.registry.get_sample_value(name, labels) == 301
