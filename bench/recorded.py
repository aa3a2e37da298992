"""Whole cycles of a paper desk that send an order, as far as they are the database's: read, decided, sent, recorded.

By the activities themselves, without Temporal and without agents. What is counted is the time in which a thread of ours has a
transaction: of the clock, and of the processor together with PostgreSQL's process behind it.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from unittest.mock import patch

from sqlalchemy import Connection, text
from temporalio.testing import ActivityEnvironment

from activities.act import ActActivities, CoordinatorState
from activities.calls import ObserveCall, OrderCall, RecordCall, Scope
from activities.metrics import WorkerMetrics
from activities.observe import ObserveActivities
from activities.record import RecordActivities
from activities.venues.paper import PaperVenue
from bench.machine import cpu_seconds
from domain.desk.outbox import RecordBatch
from domain.desk.states import Mode, State
from domain.paper.book import Terms
from domain.risk.limits import Limits
from domain.trading.decisions import Decision, DecisionType, time_ordered_id
from domain.trading.instructions import InstructionOutcome, InstructionRow, OrderInstruction, OrderType, Side, Tool
from domain.trading.orders import Fate, Order
from storage.database import Database
from storage.desks import write_desk
from tests.storage.builders import make_desk_row
from tests.venues.builders import FixedFunding, WrittenMarket

DESK, SYMBOL = "main", "BTCUSDT"
MOST_CYCLES = 5_000


class Spent(NamedTuple):
    """Seconds in the database: of the clock, and of the processor, here and in PostgreSQL."""

    clock: float
    processor: float

    def since(self, earlier: "Spent") -> "Spent":
        """What was spent in between."""
        return Spent(self.clock - earlier.clock, self.processor - earlier.processor)


class CycleSeconds(NamedTuple):
    """What a cycle spent in all, and in the two transactions that record its decision and its order's fate."""

    whole: Spent
    recording: Spent


class CountedDatabase(Database):
    """Counts the seconds that its calls take: of the clock, and of the processor in their threads."""

    clock = 0.0
    processor = 0.0

    def _perform(self, *args: Any) -> Any:
        began, used = time.perf_counter(), time.thread_time()
        try:
            return super()._perform(*args)
        finally:
            self.clock += time.perf_counter() - began
            self.processor += time.thread_time() - used


class RecordedDesk:
    """A paper desk on a market that stands still; each cycle buys, or sells again, a little."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._runner = stack.enter_context(asyncio.Runner())
        # One thread, so that one process of PostgreSQL does all of it.
        self._database = CountedDatabase(url, threads=1, timeout_seconds=60, application_name="bench")
        stack.callback(self._database.close)
        market = WrittenMarket({SYMBOL: [100] * MOST_CYCLES})
        terms = Terms(fee_bps=Decimal(4), slippage_bps=Decimal(0))
        venue = PaperVenue(
            self._database, market, DESK, balance=Decimal(1_000_000), terms=terms, funding=FixedFunding()
        )
        self._scope, metrics = Scope(desk=DESK, mode=Mode.PAPER), WorkerMetrics(DESK)
        no_agents: Any = None
        self._observing = ObserveActivities(self._scope, venue, self._database, no_agents, metrics, str)
        self._acting = ActActivities(self._scope, venue, self._database, _running, metrics)
        self._recording = RecordActivities(self._scope, self._database, metrics)
        self._number = 0
        self._pid = self._runner.run(self._database.run(_begin))

    def cycle(self, *, chained: bool) -> CycleSeconds:
        """One cycle."""
        with ExitStack() as stack:
            if not chained:
                stack.enter_context(_unchained())
            return self._runner.run(self._cycle())

    async def _cycle(self) -> CycleSeconds:
        self._number += 1
        began = self._now()
        call = ObserveCall(scope=self._scope, symbols=[SYMBOL], cycle_id=f"cycle_{self._number}", limits=Limits())
        await self._observing.observe(call)
        # The point of the equity curve.
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        decision, order, row = decided(self._number)
        first = await self._record(RecordBatch(decisions=[decision], instructions=[row]))
        sent = OrderCall(scope=self._scope, order=order)
        report = await ActivityEnvironment().run(self._acting.place_order, sent)
        assert report.fate is Fate.FILLED, report
        settled = {"outcome": InstructionOutcome.CONFIRMED, "settled_at": datetime.now(UTC), "detail": "filled"}
        second = await self._record(RecordBatch(instructions=[row.model_copy(update=settled)]))
        recording = Spent(first.clock + second.clock, first.processor + second.processor)
        return CycleSeconds(self._now().since(began), recording)

    async def _record(self, batch: RecordBatch) -> Spent:
        began = self._now()
        await self._recording.record(RecordCall(scope=self._scope, batch=batch))
        return self._now().since(began)

    def _now(self) -> Spent:
        return Spent(self._database.clock, self._database.processor + cpu_seconds(self._pid))


async def _running() -> CoordinatorState:
    return CoordinatorState(State.RUNNING)


def _begin(connection: Connection) -> int:
    write_desk(connection, make_desk_row(DESK))
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


@contextmanager
def _unchained() -> Iterator[None]:
    """Recording as it is, without the chain."""
    with (
        patch("activities.record.chain.append", lambda *_: True),
        patch("activities.record.decision_entry", lambda _: None),
        patch("activities.record.instruction_entry", lambda _: None),
    ):
        yield


def decided(number: int) -> tuple[Decision, Order, InstructionRow]:
    """What a cycle decides that sends an order, the order, and its row."""
    now, side = datetime.now(UTC), (Side.BUY, Side.SELL)[number % 2]
    id_ = time_ordered_id("decision", now, number)
    decision = Decision(
        decision_id=id_, timestamp=now, decision_type=DecisionType.ORDER_INTENT,
        summary=f"Selected {SYMBOL} from momentum: {side} 0.125 at confidence 0.62", risk_passed=True,
        agent_votes={"momentum": 0.62, "mean_reversion": -0.125}, symbol=SYMBOL, selected_order_id=f"ord_{number}",
    )  # fmt: skip
    instruction = OrderInstruction(
        symbol=SYMBOL, side=side, order_type=OrderType.MARKET, quantity=Decimal("0.125"), reduce_only=False
    )
    order = Order(
        order_id=f"ord_{number}", command_id=id_, desk=DESK, instruction=instruction, prepared_at=now,
        not_after=now + timedelta(seconds=60),
    )  # fmt: skip
    row = InstructionRow(
        instruction_id=f"ord_{number}", desk=DESK, command_id=id_, round=1, tool=Tool.CREATE_ORDER, symbol=SYMBOL,
        outcome=InstructionOutcome.PREPARED, prepared_at=now, order=instruction,
    )  # fmt: skip
    return decision, order, row
