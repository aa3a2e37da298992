"""A replay and a desk decide alike: the same bars through the engine in memory, and through a coordinator on a real Temporal
server with the paper venue in a real PostgreSQL."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from activities.act import ActActivities, CoordinatorState
from activities.calls import Scope
from activities.market.funding import FundingTable
from activities.market.replay import ReplayMarket, read_bars
from activities.metrics import WorkerMetrics
from activities.observe import ObserveActivities
from activities.record import RecordActivities
from activities.venues.paper import PaperVenue
from domain.accounting import Fill
from domain.desk import ordering
from domain.desk.states import Mode
from domain.desk.status import Status
from domain.paper.book import Terms
from domain.risk.limits import Limits
from domain.trading.decisions import Decision, DecisionType
from domain.trading.market import Bar
from storage import paper
from storage.database import Database
from storage.decisions import DecisionFilter, page
from tests.replay.builders import BTC, CRASH, D, built_in_agents, liquid, made_bars, replayed, written
from tests.workflows.world import carried
from worker import _methods, new_id
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway
from workflows.patience import TASK_TIMEOUT

TERMS = Terms(fee_bps=D(4), slippage_bps=D(2))
FUNDING = FundingTable(D("0.0001"))
# So near that fifty bars warn, reduce and kill.
LIMITS = Limits(
    soft_daily_loss="0.002", hard_daily_loss="0.0025", soft_drawdown="0.002", hard_drawdown="0.0025",
    max_position_fraction="0.25", soft_position_fraction="0.26", hard_position_fraction="0.5", order_fraction="0.1",
    max_data_age_seconds=3_600,
)  # fmt: skip


@pytest.fixture(scope="module")
def database(new_database_url: Callable[[], str]) -> Any:
    made = Database(new_database_url(), application_name="ais-replay-test")
    yield made
    made.close()


@asynccontextmanager
async def desk(client: Client, database: Database, file: Path, agents: tuple[str, ...]) -> AsyncIterator[DeskGateway]:
    """A coordinator on these bars, with everything that a worker has."""
    name = f"replay-{uuid.uuid4().hex[:8]}"
    scope = Scope(desk=name, mode=Mode.PAPER)
    gateway, instruments = DeskGateway(client, name, patience=60), WorkerMetrics(name)
    venue = PaperVenue(database, ReplayMarket({BTC: file}), name, balance=D(100_000), terms=TERMS, funding=FUNDING)

    async def ask() -> CoordinatorState:
        status = await gateway.status()
        return CoordinatorState(status.state, Limits.model_validate(status.limits))

    observing = ObserveActivities(scope, venue, database, built_in_agents(*agents), instruments, new_id)
    acting = ActActivities(scope, venue, database, ask, instruments)
    recording = RecordActivities(scope, database, instruments)
    activities = [*_methods(observing), *_methods(acting), *_methods(recording)]
    started = carried(name, limits=LIMITS, cycle_seconds=0.02, search_attributes=False)
    queue = f"q-{name}"
    own = names.activity_queue(name, Mode.PAPER.value)
    async with (
        Worker(client, task_queue=queue, workflows=[Coordinator]),
        Worker(client, task_queue=own, activities=activities),
    ):
        handle = await client.start_workflow(
            Coordinator.run, started, id=names.workflow_id(name), task_queue=queue, task_timeout=TASK_TIMEOUT
        )
        yield gateway
        await handle.terminate("the test is over")


async def until_finished(gateway: DeskGateway, bars: int) -> None:
    """Every bar was seen, and every row is written."""
    async with asyncio.timeout(600):
        while True:
            status = await gateway.status()
            if status.cycle_number > bars and not status.records_waiting and not status.open_instructions:
                return
            await asyncio.sleep(0.1)


def told(rows: list[Decision]) -> list[tuple[Any, ...]]:
    """What must be alike: everything but ids and times. Cycles that chose nothing may be merged in a desk's log."""
    kept = [row for row in rows if row.decision_type is not DecisionType.NO_ACTION]
    return [
        (row.decision_type, row.summary, row.agent_votes, row.risk_passed, row.risk_reasons, row.symbol) for row in kept
    ]


def resting(status: Status) -> list[tuple[Any, ...]]:
    return [(o.side, o.price, o.quantity - o.filled) for o in status.resting_orders]


def moved(fills: list[Fill]) -> list[tuple[Any, ...]]:
    return [(f.side, f.quantity, f.price, f.fee, f.realised_profit, f.bar_no, f.market_time) for f in fills]


@pytest.fixture(params=["made", pytest.param("crash", marks=pytest.mark.long)])
def bars(request: pytest.FixtureRequest) -> list[Bar]:
    """Bars that the test makes, and a stretch of the crash of January 2022 where the shared data is at hand."""
    if request.param == "made":
        return liquid(made_bars(50, seed=4, step=0.004, fall_at=35, fall=0.02))
    if not CRASH.exists():
        pytest.skip("the shared market data is not here")
    return read_bars(CRASH, "quote")[6_200:6_310]


@pytest.mark.parametrize(
    "agents", [(), pytest.param(("quoter",), marks=pytest.mark.thorough)], ids=["takers", "quoter"]
)
async def test_a_replay_decides_as_a_desk_does(
    temporal: Client,
    database: Database,
    bars: list[Bar],
    agents: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No replay is late. On a busy machine a desk may be, and does not send an order whose time is over.
    monkeypatch.setattr(ordering, "SHORTEST_ORDER_SECONDS", 120.0)
    file = written(tmp_path / "bars.csv", bars)
    bars = read_bars(file)
    engine, cycles = replayed(bars, built_in_agents(*agents), limits=LIMITS, terms=TERMS, funding=FUNDING)
    async with desk(temporal, database, file, agents) as gateway:
        await until_finished(gateway, len(bars))
        rows, _ = await database.run(partial(page, wanted=DecisionFilter(limit=1000, desk=gateway.desk)))
        fills = await database.run(partial(paper.list_fills, desk=gateway.desk))
        status = await gateway.status()

    mine = [row for cycle in cycles for row in cycle.decisions]
    assert told(rows[::-1])[: len(told(mine))] == told(mine)
    if agents:
        assert {fill.maker for cycle in cycles for fill in cycle.fills} >= {True}, "what rested was filled"
        assert sum("quote of quoter" in row.summary for row in mine) > 10, "quotes stood for a while"
        assert resting(status) == [(o.side, o.price, o.remaining) for o in engine.book.open_orders]
    else:
        assert {row.source for row in mine} >= {"warn_50", "soft", "hard", "risk"}, "warned, reduced, killed by a limit"
    assert moved(list(fills)) == moved([fill for cycle in cycles for fill in cycle.fills])
    assert status.observation
    assert status.observation.nav == cycles[-1].measures.equity
    assert status.state is cycles[-1].state
