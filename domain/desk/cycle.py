"""One cycle: observe, enforce the limits, decide, commit the decision, send the order.

The coordinator's workflow and the replay both run it. `Surroundings` hides the difference: activities and waiting in the
workflow; plain calls in a replay, which never waits.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from domain.deciding import Choice, nothing
from domain.desk import enforcing, identity, inbox, latch, observing, ordering, requoting
from domain.desk.ahead import blocked_symbols
from domain.desk.carried import Carried, OrderEvent, PendingOrder
from domain.desk.outbox import order_prepared, queue_row
from domain.desk.recording import Tick
from domain.desk.states import State
from domain.health import books_seen, clocks
from domain.risk.limits import Limits
from domain.trading.decisions import Decision
from domain.trading.market import DatabaseSeen, Observation
from domain.trading.orders import Fate, Order, OrderReport
from domain.trading.proposals import WaitingProposal

NOT_READ_YET = "reset, and has yet to read the latch"


class NotDone(Exception):
    """The request was not carried out, and why. `database`: the database that a failed reading found."""

    def __init__(self, why: str, database: DatabaseSeen | None = None) -> None:
        super().__init__(why)
        self.database = database


class Surroundings(Protocol):
    """What a cycle needs from outside. Commands may arrive during every `await`.

    The workflow's recorded histories depend on the order of these calls, and on the choice between `tick` and `moment`.
    With one call more, one less or another order, a run of an earlier release no longer replays
    (`domain/desk/versions.py`).
    """

    @property
    def latch_read(self) -> bool:
        """Whether this run has compared the latch in the database, since it began or since a reset of the workflow."""

    def tick(self) -> Tick:
        """The current time, for a change that people will see."""

    def moment(self) -> Tick:
        """The current time, for a change that nobody sees yet."""

    async def observe(self) -> Observation:
        """Reads the venue, which moves the market on. Raises NotDone."""

    async def read_again(self) -> Observation | None:
        """A second reading, which does not move the market on; None if there is none."""

    async def until_reduced(self) -> None:
        """Waits until no automatic reduction is under way, but not for ever."""

    async def decide(
        self, observation: Observation, blocked: dict[str, str], waiting: Sequence[WaitingProposal]
    ) -> Choice:
        """Ranks the agents' proposals and the `waiting` ones, and puts them to the guards. Raises NotDone. Returns a choice
        made beside the reading if it was made from exactly these facts (`domain/desk/ahead.py`)."""

    async def commit(self, row: Decision) -> None:
        """Writes the row to the decision log; raises NotDone."""

    async def until_canceled(self, order: Order) -> None:
        """Waits until the orders that this one replaces are canceled, but not for ever."""

    async def send(self, order: Order) -> OrderReport:
        """Sends the order at most once, and reports what is known of it."""


async def run_cycle(c: Carried, outside: Surroundings) -> None:
    """One cycle of the desk, from the reading to the order's report."""
    known = latch.known_latch(c)
    c.cycle_number += 1
    if c.proposals:
        inbox.expire(c, outside.tick())
    observation = await _observe(c, outside)
    if observation is None:
        hold: str | None = f"the venue was not observed: {c.observation_error}"
    else:
        identity.take_account(c, observation.venue_account)
        identity.take_database(c, observation.database, outside.moment())
        observing.take_observation(c, observation, known, outside.tick())
        latch.unread(c, observation.latch_error)
        hold = await _enforce(c, observation, outside)
        if hold is None and c.observation is not None:
            # The worker's clock is too far from another clock. Reductions continue.
            hold = clocks.too_far(c.observation.clocks, c.cycle_seconds)
        hold = hold or books_seen.hold(observation.books)
    if takes_risk(c, outside):
        await _decide(c, observation, hold, outside)


def seconds_to_wait(c: Carried, now: datetime) -> float:
    """How long to wait for the next cycle, never longer than one takes: Temporal's clock may have been set back by an hour since
    the last, and no limit is watched meanwhile."""
    if c.last_cycle_at is None:
        return 0.0
    left = c.last_cycle_at + timedelta(seconds=c.cycle_seconds) - now
    return min(max(left.total_seconds(), 0.0), c.cycle_seconds)


def takes_risk(c: Carried, outside: Surroundings) -> bool:
    """Whether a new order may be considered: the desk is running, and its latch was read since any reset."""
    return outside.latch_read and c.state is State.RUNNING


async def _observe(c: Carried, outside: Surroundings) -> Observation | None:
    try:
        seen = await outside.observe()
    except NotDone as failed:
        c.observation_error = str(failed)
        identity.take_database(c, failed.database, outside.moment())
        return None
    if seen.doubts:
        # A doubtful reading replaces nothing: what the last good reading showed still counts.
        c.observation_error = seen.doubt
        identity.take_database(c, seen.database, outside.moment())
        return None
    return seen


async def _enforce(c: Carried, observation: Observation, outside: Surroundings) -> str | None:
    """Does what the limits ask for. Returns why this cycle sends no order, or None."""
    hold, assessment = None, observation.assessment
    if assessment is None:
        return None
    enforcing.take_assessment(c, assessment, outside.tick())
    if assessment.breaches and c.state is not State.KILLED:
        second = await outside.read_again()
        again = second.assessment if second and not second.doubts else None
        hold = enforcing.confirm(c, assessment, again, outside.tick())
    if cut := enforcing.reduce(c, assessment, outside.tick()):
        hold = f"reducing {', '.join(cut)}"
        # Wait for the cuts, if the venue lets them through in time, before the next decision.
        await outside.until_reduced()
    return hold


async def _decide(c: Carried, observation: Observation | None, hold: str | None, outside: Surroundings) -> None:
    if c.proposals:
        # Check again: two readings and a reduction may have taken longer than a proposal lives.
        inbox.expire(c, outside.moment())
    taken, limits = list(c.proposals), c.limits
    if hold or observation is None:
        choice, taken = nothing(f"No new order: {hold}"), []
    else:
        try:
            choice = await outside.decide(observation, blocked_symbols(c), taken)
            c.agents = choice.agents
        except NotDone as failed:
            # Proposals from outside wait for the next cycle.
            choice, taken = nothing(f"No new order: the decision failed: {failed}"), []
    # Check the state again after every await: if the desk was paused or killed meanwhile, the cycle writes no row.
    if not takes_risk(c, outside):
        return
    row = ordering.decision_of(c, choice, outside.moment())
    inbox.taken_up(c, taken, choice, row, outside.moment())
    if choice.instruction is None:
        queue_row(c, row)
        return
    pending = order_prepared(c, ordering.order_of(c, choice, row, outside.moment()))
    report = await _commit(c, row, pending.order, outside) or await _send(c, pending, limits, outside)
    ordering.take_report(c, pending, report, outside.tick())


async def _commit(c: Carried, row: Decision, order: Order, outside: Surroundings) -> OrderReport | None:
    """Returns None once the decision is committed (I5), otherwise the report that the order was not sent."""
    own = c.database_id
    try:
        await outside.commit(row)
    except NotDone as failed:
        # The same row goes through the records' own queue. Even if it was written already, it appears only once.
        queue_row(c, row)
        return _not_sent(order, f"its decision could not be committed: {failed}")
    c.last_decision = row
    identity.database_written(c, own, outside.moment())
    return None


async def _send(c: Carried, pending: PendingOrder, limits: Limits, outside: Surroundings) -> OrderReport:
    order, why = pending.order, _why_not_sent(c, pending, limits, outside)
    if why is None and requoting.replaced_by(c, order):
        requoting.replace(c, order, outside.tick())
        await outside.until_canceled(order)
        still_rests = requoting.refusal(c, order) if takes_risk(c, outside) else None
        why = still_rests or _why_not_sent(c, pending, limits, outside)
    if why is not None:
        return _not_sent(order, why)
    pending.move(OrderEvent.SENT)
    return await outside.send(order)


def _why_not_sent(c: Carried, pending: PendingOrder, limits: Limits, outside: Surroundings) -> str | None:
    """Why a committed order may no longer go out. The worker decides once more, right before the send
    (`activities/act.py`)."""
    symbol = pending.order.instruction.symbol
    if c.limits != limits:
        return "the limits were changed while it was being decided"
    if not takes_risk(c, outside):
        return f"the coordinator is {c.state if outside.latch_read or c.state is State.KILLED else NOT_READ_YET}"
    if any(p is not pending and p.order.instruction.symbol == symbol for p in c.orders):
        return f"another order of {symbol} is on its way, or its fate is unknown"
    if outside.moment().now >= pending.order.not_after:
        return "more than a cycle passed before it could be sent"
    return None


def _not_sent(order: Order, detail: str) -> OrderReport:
    return OrderReport(order_id=order.order_id, fate=Fate.NOT_SENT, detail=detail)
