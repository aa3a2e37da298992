"""What the activities make of a venue's answers: fates, errors that Temporal understands, and counts."""

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import act
from activities.act import ActActivities, CoordinatorState
from activities.calls import CancelCall, CancelManyCall, ObserveCall, OrderCall, Scope
from activities.metrics import WorkerMetrics
from activities.observe import ObserveActivities
from activities.venues.aster.venue import AsterVenue
from activities.venues.paper import PaperVenue
from activities.venues.port import Clearance, HedgeMode, VenueError, VenueMisconfigured, VenueRateLimited, VenueRefused
from activities.venues.port import VenueUnavailable as Unavailable
from domain.desk.applying import apply
from domain.desk.commands import Source
from domain.desk.states import CommandKind, Mode, State
from domain.risk.limits import Limits
from domain.trading.assessment import RiskMemory
from domain.trading.instructions import Tool
from domain.trading.market import Account
from domain.trading.orders import Fate, Order, OrderReport
from storage.database import DatabaseUnavailable, unavailable
from tests.domain.builders import a_command, a_desk, a_tick, an_observation, an_open_order
from tests.venues.builders import make_order

REFUSALS = [VenueRefused("no"), VenueMisconfigured("no key"), HedgeMode()]
UNKNOWNS = [Unavailable("nobody there"), VenueRateLimited("create_order", timedelta(seconds=9))]


class Told:
    """A venue that answers as it is told."""

    counts_its_calls = False

    def __init__(
        self, answer: Any, settles_after: timedelta = timedelta(seconds=2), clock: timedelta | None = timedelta(0)
    ) -> None:
        self.settles_after = settles_after
        self._answer = answer
        self._clock = clock

    async def time(self, symbol: str) -> datetime | None:
        """Its own clock, so far from the worker's; None where it does not tell."""
        return None if self._clock is None else datetime.now(UTC) + self._clock

    async def _say(self, *_: object) -> Any:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    create_order = find_order = cancel_all = observe = bars = _say


def acting(venue: Any, mode: Mode = Mode.LIVE) -> tuple[ActActivities, WorkerMetrics, Scope]:
    async def running() -> CoordinatorState:
        return CoordinatorState(State.RUNNING)

    scope, instruments = Scope(desk="main", mode=mode), WorkerMetrics("main")
    nothing: Any = None
    return ActActivities(scope, venue, nothing, running, instruments), instruments, scope


async def place(venue: Any, order: Order, mode: Mode = Mode.LIVE) -> tuple[OrderReport, WorkerMetrics]:
    activities, instruments, scope = acting(venue, mode)
    report = await ActivityEnvironment().run(activities.place_order, OrderCall(scope=scope, order=order))
    return report, instruments


def reducing(**changes: Any) -> Order:
    """An order that asks neither latch nor coordinator."""
    return make_order(side="SELL", reduce_only=True, **changes)


@pytest.mark.parametrize("error", REFUSALS, ids=repr)
async def test_every_kind_of_refusal_is_a_rejection(error: VenueError) -> None:
    report, _ = await place(Told(error), reducing())
    assert (report.fate, report.detail) == (Fate.REJECTED, str(error))


@pytest.mark.parametrize("error", [*UNKNOWNS, asyncio.CancelledError()], ids=repr)
async def test_whatever_else_happens_to_a_send_leaves_it_unknown(error: BaseException) -> None:
    report, _ = await place(Told(error), reducing())
    assert report.fate is Fate.UNKNOWN


@pytest.mark.parametrize("mode", [Mode.PAPER, Mode.LIVE])
async def test_a_fill_counts_as_a_paper_fill_on_paper_alone(mode: Mode) -> None:
    order = reducing()
    filled = OrderReport(order_id=order.order_id, fate=Fate.FILLED, filled_quantity=order.instruction.quantity)
    _, instruments = await place(Told(filled), order, mode)
    read = instruments.registry.get_sample_value
    assert read("ais_orders_filled_total", {"symbol": "BTCUSDT"}) == 1
    assert read("ais_paper_fills_total", {"symbol": "BTCUSDT"}) == (1 if mode is Mode.PAPER else None)


@pytest.mark.parametrize("error", [*REFUSALS, *UNKNOWNS], ids=repr)
async def test_temporal_learns_whether_and_when_to_try_again(error: VenueError) -> None:
    activities, _, scope = acting(Told(error))
    call = CancelCall(scope=scope, tool=Tool.CANCEL_ALL_ORDERS, symbol="BTCUSDT", instruction_ids=["x"])
    with pytest.raises(ApplicationError) as caught:
        await ActivityEnvironment().run(activities.cancel, call)
    assert (caught.value.type, caught.value.message) == (type(error).__name__, str(error))
    assert caught.value.non_retryable is not error.retryable
    assert caught.value.next_retry_delay == error.retry_after
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("settles_after", "fate"), [(timedelta(seconds=2), Fate.NOT_SENT), (timedelta(seconds=30), Fate.UNKNOWN)]
)
async def test_an_order_that_was_never_seen_is_not_sent_only_once_it_cannot_arrive_any_more(
    settles_after: timedelta, fate: Fate
) -> None:
    activities, _, scope = acting(Told(None, settles_after))
    call = OrderCall(scope=scope, order=reducing(seconds=-10))
    assert (await ActivityEnvironment().run(activities.settle_order, call)).fate is fate


async def test_an_order_lasts_no_longer_than_a_minute_however_long_the_cycle_is() -> None:
    """Found to be false: on a desk with hourly cycles, an order that was lost on its way stayed unknown for an hour, and no kill
    was quiet meanwhile. And one that had waited for a worker went out at prices of an hour ago.
    """
    order = reducing(seconds=3600)
    old = order.model_copy(update={"prepared_at": order.prepared_at - timedelta(seconds=70)})
    activities, _, scope = acting(Told(None))
    assert (
        await ActivityEnvironment().run(activities.settle_order, OrderCall(scope=scope, order=old))
    ).fate is Fate.NOT_SENT
    fresh = await ActivityEnvironment().run(activities.settle_order, OrderCall(scope=scope, order=order))
    assert fresh.fate is Fate.UNKNOWN
    report, _ = await place(Told(OrderReport(order_id=old.order_id, fate=Fate.FILLED)), old)
    assert (report.fate, "too late" in report.detail) == (Fate.NOT_SENT, True)


@pytest.mark.parametrize("clock", [timedelta(hours=-1), None])
async def test_one_machines_clock_alone_declares_no_fate(clock: timedelta | None) -> None:
    """The worker's clock is an hour ahead of the venue's, or the venue does not tell its own."""
    activities, _, scope = acting(Told(None, clock=clock))
    call = OrderCall(scope=scope, order=reducing(seconds=-10))
    assert (await ActivityEnvironment().run(activities.settle_order, call)).fate is Fate.UNKNOWN


async def test_an_order_that_cannot_be_canceled_keeps_no_other_from_it() -> None:
    canceled = []

    class Canceling(Told):
        async def cancel_order(self, symbol: str, order_id: str) -> None:
            if order_id == "1":
                raise Unavailable("cancel_order: HTTP 503")
            canceled.append(order_id)

    activities, _, scope = acting(Canceling(None))
    ids = ["1", "2", "3"]
    call = CancelCall(scope=scope, tool=Tool.CANCEL_ORDER, symbol="BTCUSDT", instruction_ids=["i"], order_ids=ids)
    with pytest.raises(ApplicationError, match="HTTP 503"):
        await ActivityEnvironment().run(activities.cancel, call)
    assert canceled == ["2", "3"]


@pytest.mark.parametrize("ahead", [timedelta(minutes=5), timedelta(minutes=-5)])
async def test_temporals_clock_declares_no_fate_either(ahead: timedelta) -> None:
    """Found to be false: with that clock five minutes ahead, an order was searched for only among those of after it."""
    asked: list[Order] = []

    class Asked(Told):
        async def find_order(self, order: Order) -> OrderReport | None:  # type: ignore[override]
            asked.append(order)
            return None

        async def create_order(self, order: Order, clearance: Clearance) -> OrderReport:  # type: ignore[override]
            asked.append(order)
            return OrderReport(order_id=order.order_id, fate=Fate.FILLED)

    activities, _, scope = acting(Asked(None))
    environment, placed = ActivityEnvironment(), datetime.now(UTC)
    environment.info = replace(environment.info, started_time=placed + ahead)
    call = OrderCall(scope=scope, order=reducing().model_copy(update={"prepared_at": placed + ahead}))
    await environment.run(activities.settle_order, call)
    placing = await environment.run(activities.place_order, call)
    assert all(order.prepared_at <= datetime.now(UTC) for order in asked)
    assert all(order.prepared_at > placed - timedelta(minutes=6) for order in asked)
    # By a clock that is five minutes behind, an order is too late when it is prepared.
    assert (placing.fate, len(asked)) == ((Fate.FILLED, 2) if ahead > timedelta() else (Fate.NOT_SENT, 1))


@pytest.mark.parametrize(
    ("bug", "error"),
    [(KeyError("a secret"), "a bug: KeyError"), (asyncio.CancelledError(), "it was cancelled: a bug")],
    ids=["an error", "a cancel scope of the client that leaks"],
)
async def test_a_bug_in_one_cancel_costs_no_other_its_confirmation(bug: BaseException, error: str) -> None:
    class Canceling(Told):
        async def cancel_all(self, tool: Tool, symbol: str) -> None:  # type: ignore[override]
            if symbol == "ETHUSDT":
                raise bug

    activities, _, scope = acting(Canceling(None))
    tool = Tool.CANCEL_ALL_ORDERS
    cancels = [
        CancelCall(scope=scope, tool=tool, symbol=symbol, instruction_ids=["i"]) for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    answers = await ActivityEnvironment().run(activities.cancel_many, CancelManyCall(scope=scope, cancels=cancels))
    assert [answer.error for answer in answers] == [None, error]


async def test_a_late_answer_prolongs_no_wait_for_the_others_past_the_time_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found to be false: an answer shortly before the end was followed by a whole wait, and the activity's time ran out with the
    answers of all its cancels."""
    monkeypatch.setattr(act, "TOGETHER_SECONDS", 1.0)
    monkeypatch.setattr(act, "IDLE_SECONDS", 120.0)

    class Slow(Told):
        async def cancel_all(self, tool: Tool, symbol: str) -> None:  # type: ignore[override]
            await asyncio.sleep(0.2 if symbol == "BTCUSDT" else 3600)

    activities, _, scope = acting(Slow(None))
    tool = Tool.CANCEL_ALL_ORDERS
    cancels = [
        CancelCall(scope=scope, tool=tool, symbol=symbol, instruction_ids=["i"]) for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    async with asyncio.timeout(60):
        answers = await ActivityEnvironment().run(activities.cancel_many, CancelManyCall(scope=scope, cancels=cancels))
    assert [answer.done for answer in answers] == [True, False]
    for task in activities._cancelling.values():
        task.cancel()


async def test_an_order_is_sent_by_the_first_attempt_only() -> None:
    """`temporal activity update-options --retry-maximum-attempts 5`, and a worker that ended while it was sending."""
    activities, _, scope = acting(Told(OrderReport(order_id="x", fate=Fate.FILLED)))
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=2)
    report = await environment.run(activities.place_order, OrderCall(scope=scope, order=reducing()))
    assert report.fate is Fate.UNKNOWN


async def test_an_order_is_sent_by_the_first_attempt_only_though_somebody_resets_the_count() -> None:
    """`temporal activity reset` while Temporal waits for the next attempt: that one counts as the first again."""
    activities, _, scope = acting(Told(OrderReport(order_id="x", fate=Fate.FILLED)))
    environment = ActivityEnvironment()
    later = environment.info.scheduled_time + timedelta(seconds=5)
    environment.info = replace(environment.info, attempt=1, current_attempt_scheduled_time=later)
    report = await environment.run(activities.place_order, OrderCall(scope=scope, order=reducing()))
    assert report.fate is Fate.UNKNOWN


async def test_calls_are_counted_once_by_the_venue_or_by_the_activity() -> None:
    assert (PaperVenue.counts_its_calls, AsterVenue.counts_its_calls) == (False, True)
    assert AsterVenue.settles_after > PaperVenue.settles_after
    for counts in (False, True):
        venue = Told(Unavailable("nobody there"))
        venue.counts_its_calls = counts
        _, instruments = await place(venue, reducing())
        read, expected = instruments.registry.get_sample_value, None if counts else 1
        assert read("ais_aster_latency_seconds_count", {"tool": "create_order"}) == expected
        assert read("ais_aster_errors_total", {"tool": "create_order"}) == expected


@pytest.mark.parametrize(
    ("word", "why"),
    [
        (CoordinatorState(State.KILLED, Limits()), "the coordinator is killed"),
        (CoordinatorState(State.RUNNING, Limits(max_leverage="1.5")), "the limits were changed since it was decided"),
    ],
)
async def test_the_coordinators_last_word_stops_an_order(word: CoordinatorState, why: str) -> None:
    """Said after the venue was asked to send, since what a venue reads before it sends may take seconds."""
    words = iter([CoordinatorState(State.RUNNING, Limits()), word])

    async def ask() -> CoordinatorState:
        return next(words)

    class Database:
        async def run(self, work: Any, seconds: float) -> Any:
            return SimpleNamespace(killed=False)

    scope, database = Scope(desk="main", mode=Mode.LIVE), Database()
    activities = ActActivities(scope, AskingVenue(), database, ask, WorkerMetrics("main"))  # type: ignore[arg-type]
    call = OrderCall(scope=scope, order=make_order(), limits=Limits())
    report = await ActivityEnvironment().run(activities.place_order, call)
    assert (report.fate, report.detail) == (Fate.NOT_SENT, why)


class AskingVenue:
    """A venue that does as the port says, and would fill."""

    counts_its_calls = True

    async def create_order(self, order: Order, clearance: Clearance) -> OrderReport:
        async def fills() -> OrderReport:
            return OrderReport(order_id=order.order_id, fate=Fate.FILLED)

        return await clearance.send(fills)


class Away:
    """A database that does not answer."""

    async def run(self, work: Any, seconds: float) -> Any:
        raise DatabaseUnavailable("x")


@pytest.mark.parametrize("doubts", [[], ["BTCUSDT: get_positions says 0, get_account_v4 1"]])
async def test_a_reading_that_is_no_fact_is_counted_and_held_against_no_limit(doubts: list[str]) -> None:
    scope, instruments, nothing = Scope(desk="main", mode=Mode.LIVE), WorkerMetrics("main"), cast(Any, None)
    venue, database = cast(Any, Told(an_observation(doubts=doubts))), cast(Any, Away())
    activities = ObserveActivities(scope, venue, database, nothing, instruments, lambda prefix: prefix)
    seen = await activities.observe(ObserveCall(scope=scope, symbols=["BTCUSDT"], cycle_id=None, limits=Limits()))
    assert (seen.doubts, seen.assessment is None) == (doubts, bool(doubts))
    counted = instruments.registry.get_sample_value("ais_doubtful_readings_total", {"desk": "main"})
    assert (counted or 0) == len(doubts)


YESTERDAY = date(2026, 3, 12)


@pytest.mark.parametrize(
    ("clock", "cycle_id", "day"),
    [
        (timedelta(0), "1", date(2026, 3, 13)),
        # The worker's clock is ahead of the exchange's: there the day has not begun yet.
        (timedelta(hours=-2), "1", YESTERDAY),
        (timedelta(hours=2), "1", date(2026, 3, 13)),
        # The worker's clock is days behind: its day is long over.
        (timedelta(days=3), "1", date(2026, 3, 16)),
        # The reading that has to confirm a loss of the day, a moment after midnight or by a worker whose clock is ahead.
        (timedelta(0), None, YESTERDAY),
    ],
)
async def test_a_day_begins_once_every_clock_says_so(clock: timedelta, cycle_id: str | None, day: date) -> None:
    """A worker whose clock was ahead began a day of its own: the loss of the true one was forgotten, and none was confirmed."""
    seen = an_observation(observed_at=datetime(2026, 3, 13, 1, tzinfo=UTC), account=Account(balance=Decimal(9_000)))
    scope, nothing = Scope(desk="main", mode=Mode.LIVE), cast(Any, None)
    venue, database = cast(Any, Told(seen, clock=clock)), cast(Any, Away())
    activities = ObserveActivities(scope, venue, database, nothing, WorkerMetrics("main"), lambda prefix: prefix)
    memory = RiskMemory(day=YESTERDAY, day_open=Decimal(10_000), last_equity=Decimal(9_000))
    call = ObserveCall(scope=scope, symbols=["BTCUSDT"], cycle_id=cycle_id, limits=Limits(), risk=memory)
    found = (await activities.observe(call)).assessment
    assert found is not None
    assert (found.memory.day, found.measures.daily_loss) == (day, Decimal(0) if day > YESTERDAY else Decimal("0.1"))


class Spoilt:
    """A database whose row of the desk cannot be read as one."""

    async def run(self, work: Any, seconds: float) -> Any:
        raise LookupError("mode 'live2'")


async def test_a_row_that_cannot_be_read_costs_no_reading_and_stops_every_order() -> None:
    """Found to be false: with a damaged index or a row of another version no kill was verified, and orders became unknown."""
    scope, nothing = Scope(desk="main", mode=Mode.LIVE), cast(Any, None)
    venue, database = cast(Any, Told(an_observation())), cast(Any, Spoilt())
    activities = ObserveActivities(scope, venue, database, nothing, WorkerMetrics("main"), lambda prefix: prefix)
    seen = await activities.observe(ObserveCall(scope=scope, symbols=["BTCUSDT"], cycle_id=None))
    assert (seen.doubts, seen.latch_error) == ([], "the desk's row cannot be read: LookupError")

    async def running() -> CoordinatorState:
        return CoordinatorState(State.RUNNING)

    acts = ActActivities(scope, venue, database, running, WorkerMetrics("main"))
    report = await ActivityEnvironment().run(acts.place_order, OrderCall(scope=scope, order=make_order()))
    assert (report.fate, report.detail) == (Fate.NOT_SENT, "the latch cannot be read: LookupError")
    damaged = DBAPIError.instance("x", None, psycopg.errors.IndexCorrupted("index is damaged"), psycopg.Error)
    assert isinstance(unavailable(damaged), DatabaseUnavailable)
    assert unavailable(DBAPIError.instance("x", None, psycopg.errors.UniqueViolation("x"), psycopg.Error)) is None


async def test_a_reading_with_more_orders_than_a_result_holds_shows_one_of_each_symbol_and_is_no_fact() -> None:
    """Found to be false: with some eleven thousand orders on the account, Temporal refused every reading after a kill."""
    order = an_open_order("BTCUSDT").model_copy(update={"order_id": "1234567890123", "price": Decimal("65432.10")})
    orders = [order.model_copy(update={"order_id": str(10**12 + number)}) for number in range(12_000)]
    orders += [order.model_copy(update={"symbol": f"S{number:03}USDT"}) for number in range(200)]
    scope, nothing = Scope(desk="main", mode=Mode.LIVE), cast(Any, None)
    venue = cast(Any, Told(an_observation(open_orders=orders)))
    activities = ObserveActivities(
        scope, venue, cast(Any, Away()), nothing, WorkerMetrics("main"), lambda prefix: prefix
    )
    seen = await activities.observe(ObserveCall(scope=scope, symbols=["BTCUSDT"], cycle_id=None, limits=Limits()))
    assert (len({each.symbol for each in seen.open_orders}), seen.assessment) == (201, None)
    assert seen.doubts == ["5200 more orders are open"]
    assert len(seen.model_dump_json()) < 2_000_000


def test_a_kill_is_counted_once_however_often_it_is_repeated() -> None:
    desk, metrics = a_desk(), WorkerMetrics("main")
    for kind, command_id in ((CommandKind.PAUSE, "p"), (CommandKind.KILL, "k1"), (CommandKind.KILL, "k2")):
        apply(desk, a_command(kind, command_id), a_tick())
    for row in desk.records:
        metrics.decision_written(row)
    counted = {
        sample.labels["source"]: sample.value
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "ais_kill_switch_triggers_total"
    }
    assert counted == {source.value: float(source is Source.SIGNAL) for source in Source}
