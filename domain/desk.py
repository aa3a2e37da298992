"""The pure coordinator: how each command, observation and result changes the carried state.

Everything here runs at once, inside one workflow task, and awaits nothing; the workflow passes the time and the ids in.
"""

from collections.abc import Callable
from datetime import timedelta

from domain import books_seen, clocks, growth, identity, inbox, latch
from domain.assessment import RiskMemory
from domain.books_seen import BooksSeen
from domain.carried import (
    Carried,
    OrderPhase,
    Outcome,
    PendingDeleverage,
    PendingOrder,
    PendingRestart,
    RefusalCode,
)
from domain.commands import Command, nearest_name, read_cancellation
from domain.deciding import Choice
from domain.decisions import Decision, DecisionType
from domain.disks import WARNING, DiskSpace
from domain.killing import issue_cancels, kill, note_symbols
from domain.limits import changed
from domain.market import Observation
from domain.orders import Fate, Order, OrderReport
from domain.outbox import note_quiet, order_prepared, order_reported, queue_row
from domain.reducing import Plan
from domain.risk import RATE_WINDOW
from domain.states import CommandKind, State, transition
from domain.symbols import covered_symbols, few
from domain.traces import (
    MAX_COMMAND_AGE,
    Tick,
    control_row,
    enter,
    forget_old_commands,
    forget_rounds,
    remember,
    unwarn,
    warn,
)
from domain.values import ZERO
from domain.versions import flattens_on, restarts_wait_for_the_next_run

MAX_DELEVERAGES = 100
MAX_CARRIED_ORDERS = 100
# An order is valid for one cycle. In replays with cycles of a second or less, committing its decision would use that up.
SHORTEST_ORDER_SECONDS = 2.0
REDUCTION_SECONDS = 15.0


def apply(c: Carried, command: Command, tick: Tick) -> None:
    """Carries out one command, or records its refusal. Idempotent by command id, but a kill always kills."""
    known = c.commands.get(command.command_id)
    # While a restart is under way, a repeated kill has to beat it: the desk is about to run again.
    about_to_run = c.state is not State.KILLED or c.restart is not None
    must_kill = command.kind is CommandKind.KILL and about_to_run
    if known and not must_kill:
        if known.fingerprint != command.fingerprint:
            _log_refusal(c, command, "the command id was used for another command", tick)
        return
    if command.kind is CommandKind.KILL:
        kill(c, command, tick)
    elif refusal := _refusal(c, command, tick):
        _refuse(c, command, *refusal, tick)
    else:
        _HANDLERS[command.kind](c, command, tick)
    forget_old_commands(c, tick)


def failed_to_apply(c: Carried, command: Command, error: Exception, tick: Tick) -> None:
    """A bug in a command's handling, told as a refusal: a signal that raises fails every later task with it, kills too."""
    text = f"it could not be handled ({type(error).__name__}); it may have been done in part"
    warn(c, f"{command.kind.value}: {text}")
    _refuse(c, command, text, RefusalCode.INVALID, tick)


def take_observation(c: Carried, observation: Observation, known: int, tick: Tick) -> None:
    """Takes a reading in: symbols seen, and the latch, where killed in either place means killed.

    `known` is `latch.known_latch` from before the reading began: one that was on its way while the latch was written proves
    nothing.
    """
    if len(observation.open_orders) > MAX_CARRIED_ORDERS:
        few = {"open_orders": observation.open_orders[:MAX_CARRIED_ORDERS]}
        observation = observation.model_copy(update=few)
    observation = _warn_of_clocks(c, observation)
    c.observation, c.observation_error = observation, None
    c.filled = {}
    growth.compare(c, observation, tick)
    note_symbols(c, observation)
    _warn_of_disks(c, observation.low_disks)
    _warn_of_books(c, observation.books)
    if observation.latch_error is None:
        latch.compare(c, observation.latch, known, tick)


def _warn_of_disks(c: Carried, low_disks: list[DiskSpace]) -> None:
    unwarn(c, WARNING)
    for disk in reversed(low_disks):
        warn(c, disk.text)


def _warn_of_books(c: Carried, found: BooksSeen | None) -> None:
    """They last until a reading that could ask says otherwise."""
    if found is None:
        return
    for beginning in books_seen.WARNINGS:
        unwarn(c, beginning)
    for text in books_seen.warnings_of(found):
        warn(c, text)


def _warn_of_clocks(c: Carried, observation: Observation) -> Observation:
    """A warning lasts until a reading of the same clock agrees again."""
    before = c.observation.clocks if c.observation else []
    known = clocks.newest(before, observation.clocks)
    for reading in known:
        unwarn(c, clocks.warning_of(reading.clock))
        if reading.differs:
            warn(c, reading.text)
    return observation.model_copy(update={"clocks": known})


def cancelled(c: Carried, reason: str, tick: Tick) -> None:
    """`temporal workflow cancel`: means kill; the server takes one a run, so the run ends as soon as it may."""
    apply(c, read_cancellation(reason, tick.new_id("command")), tick)
    c.hand_over = True


def unknown_signal(c: Carried, name: str, tick: Tick) -> None:
    """A signal that no command has: logged as refused, naming the nearest, and shown to the operator."""
    shown, nearest = name[:64], nearest_name(name)
    text = f"unknown signal {shown!r}; did you mean {nearest!r}?"
    warn(c, text)
    row = Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=DecisionType.CONTROL,
        summary=f"{shown} refused by temporal: {text}",
        risk_reasons=[text],
        desk=c.desk,
    )
    queue_row(c, row)


def blocked(c: Carried) -> dict[str, str]:
    """Symbols that take no new order, and why: one of theirs is on its way, or nobody knows what became of it."""
    return {p.order.instruction.symbol: f"order_unknown: {p.order.order_id}" for p in c.orders}


def decision_of(c: Carried, choice: Choice, tick: Tick) -> Decision:
    """The row of a cycle's choice; that of an order names the order that it will be."""
    proposal = choice.proposal
    return Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=choice.decision_type,
        summary=choice.summary,
        agent_votes=choice.votes,
        selected_signal_id=proposal.proposal_id if proposal else None,
        selected_order_id=tick.new_id("ord") if choice.instruction else None,
        risk_passed=choice.risk_passed,
        risk_reasons=choice.risk_reasons,
        desk=c.desk,
        symbol=proposal.symbol if proposal else None,
    )


def order_of(c: Carried, choice: Choice, row: Decision, tick: Tick) -> Order:
    """The order that a decision is for; it counts towards the order rate from now on."""
    assert choice.instruction is not None
    assert row.selected_order_id is not None
    if c.observation:
        now = c.observation.market_time
        c.recent_orders = [*(sent for sent in c.recent_orders if sent > now - RATE_WINDOW), now]
    return Order(
        order_id=row.selected_order_id,
        command_id=row.decision_id,
        desk=c.desk,
        instruction=choice.instruction,
        not_after=tick.now + timedelta(seconds=max(c.cycle_seconds, SHORTEST_ORDER_SECONDS)),
        prepared_at=tick.now,
        position_before=c.observation.held(choice.instruction.symbol) if c.observation else None,
    )


def reduction_prepared(c: Carried, pending: PendingDeleverage, plan: Plan, tick: Tick) -> PendingOrder:
    """The order of a deleverage, about to be sent: what only takes risk off waits for no record."""
    assert plan.instruction is not None
    order = Order(
        order_id=tick.new_id("ord"),
        command_id=pending.command.command_id,
        desk=c.desk,
        instruction=plan.instruction,
        not_after=tick.now + timedelta(seconds=REDUCTION_SECONDS),
        prepared_at=tick.now,
        position_before=plan.position,
    )
    placed = order_prepared(c, order)
    placed.phase = OrderPhase.SENDING
    pending.order_id = order.order_id
    if record := c.commands.get(pending.command.command_id):
        record.instruction = plan.instruction
    return placed


def take_report(c: Carried, pending: PendingOrder, report: OrderReport, tick: Tick) -> None:
    """Takes an order's report in: the cancels again where a kill came after it was sent, and the deleverage it was for."""
    record = c.commands.get(c.kill.command_id) if c.kill else None
    if pending.phase is not OrderPhase.UNKNOWN:
        growth.note_fill(c, pending, report)
    if order_reported(c, pending, report, tick.now) and record:
        issue_cancels(c, record, [pending.order.instruction.symbol], tick)
    mine = (d for d in c.deleverages if d.order_id == report.order_id)
    if report.fate.is_known and (deleverage := next(mine, None)):
        done = report.fate.reached_venue or report.fate is Fate.PREPARED
        refusal = None if done else f"the order did not reach the book: {report.detail}"
        shortfall = _shortfall(pending.order, report)
        if shortfall and not report.filled_quantity:
            refusal, shortfall = shortfall, None
        finish_deleverage(c, deleverage, refusal, tick, shortfall)
        if _goes_on(c, deleverage, pending.order, report):
            c.deleverages.append(deleverage.model_copy(update={"order_id": None}))
    if report.fate.is_known:
        unwarn(c, unknown_text(report.order_id))
    note_quiet(c, tick.now)


def _goes_on(c: Carried, deleverage: PendingDeleverage, order: Order, report: OrderReport) -> bool:
    """Whether the kill that flattens has closed a part of a position: the next order follows at once, for the rest."""
    flattens = c.state is State.KILLED and c.kill is not None and c.kill.flattens and c.kill.flat_at is None
    if not (flattens and deleverage.automatic and deleverage.quantity is None and flattens_on(c.schema_version)):
        return False
    return ZERO < report.filled_quantity < abs(order.position_before or ZERO)


def unknown_text(order_id: str) -> str:
    """How the warning begins that tells of an order whose fate is not known."""
    return f"the fate of order {order_id} is unknown"


def _shortfall(order: Order, report: OrderReport) -> str | None:
    """What an order that the venue has given up did not do: a part of a deleverage is never told as all of it (I6)."""
    if report.fate is not Fate.CANCELED:
        return None
    return f"{report.filled_quantity} of {order.instruction.quantity} was filled: {report.detail}"


def finish_deleverage(
    c: Carried, pending: PendingDeleverage, refusal: str | None, tick: Tick, shortfall: str | None = None
) -> None:
    """Settles a deleverage: applied where `refusal` is None, in part where there is a `shortfall`."""
    c.deleverages.remove(pending)
    if pending.automatic:
        _automatic_finished(c, pending.symbol, refusal)
        return
    record = c.commands.get(pending.command.command_id)
    # A kill may have taken the id over meanwhile: its outcome is its own.
    if record and record.kind is CommandKind.DELEVERAGE:
        record.outcome = Outcome.REFUSED if refusal else Outcome.APPLIED
        record.detail, record.code = refusal or shortfall, RefusalCode.CONFLICT if refusal else None
    word = "refused" if refusal else "applied in part" if shortfall else "applied"
    queue_row(c, control_row(c, pending.command, word, tick, refusal or shortfall))


def _automatic_finished(c: Carried, symbol: str, refusal: str | None) -> None:
    # No row: the crossing has told of the reduction, and the next reading asks for what is still too much.
    beginning = f"reducing {symbol} failed"
    unwarn(c, beginning)
    if refusal:
        warn(c, f"{beginning}: {refusal}")


def finish_restart(c: Carried, error: str | None, tick: Tick) -> None:
    """The last step of a restart: running only where the latch was cleared and no kill came meanwhile."""
    restart, c.restart = c.restart, None
    assert restart is not None
    if error is None and c.kill_number != restart.kill_number:
        error = "a kill came while the restart was under way"
    if error:
        # The latch may have been cleared all the same (an answer that was lost): a new number latches it again.
        c.kill_number, c.latched_number = max(c.kill_number, restart.kill_number + 1), 0
        c.kill_id = tick.new_id("kill")
        _refuse_restart(c, restart.command, error, tick)
        return
    forget_rounds(c, *c.commands.values())
    # What is still on its way keeps its record: a deleverage may be settled after the restart.
    c.commands = {name: record for name, record in c.commands.items() if record.outcome is Outcome.PENDING}
    remember(c, restart.command, Outcome.APPLIED, tick)
    latch.restart_applied(c, restart.row.decision_id, restart.kill_number)
    c.kill, c.hand_over = None, True
    unwarn(c, growth.GREW)
    c.deleverages = [d for d in c.deleverages if d.order_id or not d.automatic]
    # A person has looked: drawdown and the day's loss are measured anew from here.
    c.risk = RiskMemory()
    c.last_decision = restart.row
    enter(c, State.RUNNING, restart.command, tick)


def _refuse_restart(c: Carried, command: Command, error: str, tick: Tick) -> None:
    known = c.commands.get(command.command_id)
    if known is None or known.kind is CommandKind.RESTART:
        _refuse(c, command, error, RefusalCode.CONFLICT, tick)
    else:
        # A kill has taken the id over meanwhile: its outcome is its own.
        _log_refusal(c, command, error, tick)


def _refusal(c: Carried, command: Command, tick: Tick) -> tuple[str, RefusalCode] | None:
    if refused := transition(c.state, command.kind).refusal:
        return refused, RefusalCode.CONFLICT
    if command.sent_at and tick.now - command.sent_at > MAX_COMMAND_AGE:
        return "it reached the coordinator more than 24 h after it was sent", RefusalCode.EXPIRED
    if command.problem and command.kind not in (CommandKind.PAUSE, CommandKind.RESUME):
        return command.problem, RefusalCode.INVALID
    return _CHECKS[command.kind](c, command) if command.kind in _CHECKS else None


def _check_symbols(c: Carried, command: Command) -> tuple[str, RefusalCode] | None:
    allowed = dict.fromkeys(covered_symbols(c.symbols, c.seen_symbols))
    asked = [command.symbol] if command.symbol else command.symbols or []
    strange = [symbol for symbol in asked if symbol not in allowed]
    if strange:
        text = f"{strange[0]} is neither whitelisted nor held; allowed are {few(list(allowed))}"
        return text, RefusalCode.INVALID
    return None


def _check_limits(c: Carried, command: Command) -> tuple[str, RefusalCode] | None:
    try:
        _, changes = changed(c.limits, command.limits or {})
    except ValueError as error:
        return str(error), RefusalCode.INVALID
    looser = [str(change) for change in changes if change.loosens]
    if looser and c.state is not State.PAUSED:
        how = "restart it, then pause it" if c.state is State.KILLED else "pause it first"
        text = f"{', '.join(looser)} would be looser, which is allowed only on a paused desk: {how}; tightening works at once"
        return text, RefusalCode.CONFLICT
    return None


def _check_deleverage(c: Carried, command: Command) -> tuple[str, RefusalCode] | None:
    if len(c.deleverages) >= MAX_DELEVERAGES:
        return f"{MAX_DELEVERAGES} deleverages are waiting already; try again later", RefusalCode.BUSY
    return _check_symbols(c, command)


def _check_restart(c: Carried, command: Command) -> tuple[str, RefusalCode] | None:
    if c.hand_over and restarts_wait_for_the_next_run(c.schema_version):
        # Where a cancellation ends it, the server swallows another one: a restart that waited meanwhile would undo that kill.
        text = "the coordinator is about to continue as a new run; try again in a moment"
    elif command.kill_number != c.kill_number:
        text = f"kill_number is {c.kill_number}, not {command.kill_number}: a kill came since you looked"
    elif c.restart is not None:
        text = "another restart is under way"
    elif c.orders:
        text = f"the fate of order {c.orders[0].order.order_id} is unknown; wait until it is settled"
    elif identity.is_other(c, command.database_id):
        # Nothing of the kill can be in a database that is only about to become the desk's.
        return None
    elif not c.latched or (c.kill and not c.kill.row_written):
        text = "the kill's own row and latch are not in the database yet; wait for it"
    else:
        return None
    return text, RefusalCode.CONFLICT


def _pause(c: Carried, command: Command, tick: Tick) -> None:
    row = _change_state(c, command, tick)
    waiting = next((p for p in c.orders if p.adds_risk and p.phase is not OrderPhase.UNKNOWN), None)
    if waiting and waiting.pause_row is None:
        # Whether the pause stopped this order is known with its fate; the row is written then and says it.
        waiting.pause_row = row
    else:
        queue_row(c, row)


def _resume(c: Carried, command: Command, tick: Tick) -> None:
    queue_row(c, _change_state(c, command, tick))


def _change_state(c: Carried, command: Command, tick: Tick) -> Decision:
    state = transition(c.state, command.kind).state
    repeated = state is c.state
    remember(c, command, Outcome.APPLIED, tick, repeated=repeated)
    if not repeated:
        enter(c, state, command, tick)
    return control_row(c, command, "repeated" if repeated else "applied", tick)


def _cancel_all(c: Carried, command: Command, tick: Tick) -> None:
    symbols = command.symbols or covered_symbols(c.symbols, c.seen_symbols)
    record = remember(c, command, Outcome.APPLIED, tick)
    record.symbols = symbols
    issue_cancels(c, record, symbols, tick)
    queue_row(c, control_row(c, command, "applied", tick))


def _deleverage(c: Carried, command: Command, tick: Tick) -> None:
    assert command.symbol is not None
    assert command.reduce_pct is not None
    remember(c, command, Outcome.PENDING, tick)
    pending = PendingDeleverage(command=command, symbol=command.symbol, reduce_pct=command.reduce_pct)
    c.deleverages.append(pending)


def _restart(c: Carried, command: Command, tick: Tick) -> None:
    assert command.kill_number is not None
    if command.database_id and identity.is_other(c, command.database_id):
        remember(c, command, Outcome.APPLIED, tick).detail = "the desk stays killed: another database was taken first"
        identity.adopt(c, command.database_id, tick)
        return
    remember(c, command, Outcome.PENDING, tick)
    row = control_row(c, command, "applied", tick)
    latch.restart_tried(c, row.decision_id)
    c.restart = PendingRestart(command=command, kill_number=command.kill_number, kill_id=c.kill_id, row=row)


def _set_limits(c: Carried, command: Command, tick: Tick) -> None:
    limits, changes = changed(c.limits, command.limits or {})
    record = remember(c, command, Outcome.APPLIED, tick, repeated=not changes)
    c.limits = limits
    told = "; ".join(map(str, changes)) or "as they were"
    record.detail, record.limits = told, {name: str(getattr(limits, name)) for name in command.limits or {}}
    reason = f"{told} ({command.reason})" if command.reason else told
    queue_row(c, control_row(c, command, "applied" if changes else "repeated", tick, shown=reason))


_HANDLERS: dict[CommandKind, Callable[[Carried, Command, Tick], None]] = {
    CommandKind.PAUSE: _pause,
    CommandKind.RESUME: _resume,
    CommandKind.CANCEL_ALL: _cancel_all,
    CommandKind.DELEVERAGE: _deleverage,
    CommandKind.RESTART: _restart,
    CommandKind.SET_LIMITS: _set_limits,
    CommandKind.PROPOSE: inbox.propose,
}

_CHECKS: dict[CommandKind, Callable[[Carried, Command], tuple[str, RefusalCode] | None]] = {
    CommandKind.CANCEL_ALL: _check_symbols,
    CommandKind.DELEVERAGE: _check_deleverage,
    CommandKind.RESTART: _check_restart,
    CommandKind.SET_LIMITS: _check_limits,
    CommandKind.PROPOSE: inbox.check_proposal,
}


def _refuse(c: Carried, command: Command, detail: str, code: RefusalCode, tick: Tick) -> None:
    record = remember(c, command, Outcome.REFUSED, tick)
    record.detail, record.code = detail, code
    _log_refusal(c, command, detail, tick)


def _log_refusal(c: Carried, command: Command, detail: str, tick: Tick) -> None:
    queue_row(c, control_row(c, command, "refused", tick, detail))
