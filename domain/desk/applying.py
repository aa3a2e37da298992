"""Commands: how each changes the carried state, or why it is refused.

Everything here runs at once, inside one workflow task, and awaits nothing; the workflow passes the time and the ids in.
"""

from domain.desk import adding, identity, inbox, latch, moving, terms
from domain.desk.carried import (
    Carried,
    OrderPhase,
    Outcome,
    PendingDeleverage,
    PendingRestart,
    Refusal,
    RefusalCode,
)
from domain.desk.commands import AddSymbols, CancelAll, Command, Deleverage, Propose, Restart, SetLimits
from domain.desk.killing import issue_cancels, kill
from domain.desk.outbox import queue_row
from domain.desk.payloads import nearest_name, read_cancellation
from domain.desk.recording import (
    MAX_COMMAND_AGE,
    Tick,
    control_row,
    decision_row,
    enter,
    forget_old_commands,
    remember,
)
from domain.desk.states import CommandKind, State, transition
from domain.desk.versions import keeps_the_id_of_a_kill
from domain.desk.warnings import Topic, unwarn, warn
from domain.risk.limits import PORTFOLIO_LIMITS, changed
from domain.trading.assessment import RiskMemory
from domain.trading.decisions import Decision, DecisionType
from domain.trading.market import Observation
from domain.trading.symbols import covered_symbols, few

MAX_DELEVERAGES = 100


def apply(c: Carried, command: Command, tick: Tick) -> None:
    """Carries out one command, or records its refusal. A repeated command id does nothing again, but a kill always kills."""
    known = c.commands.get(command.command_id)
    # During a restart, a repeated kill must still beat it: the desk is about to run again.
    about_to_run = c.state is not State.KILLED or c.restart is not None
    must_kill = command.kind is CommandKind.KILL and about_to_run
    if known and not must_kill:
        if known.fingerprint != command.fingerprint:
            _log_refusal(c, command, "the command id was used for another command", tick)
        return
    if command.kind is CommandKind.KILL:
        kill(c, command, tick)
    elif refusal := _refusal(c, command, tick) or _carry_out(c, command, tick):
        _refuse(c, command, refusal, tick)
    forget_old_commands(c, tick)


def failed_to_apply(c: Carried, command: Command, error: Exception, tick: Tick) -> None:
    """Turns a bug into a refusal: an exception here would fail the workflow task for ever and block later kills."""
    text = f"it failed with {type(error).__name__} and may have been carried out in part"
    warn(c, Topic.COMMAND_FAILED, f"{command.kind.value}: {text}", command.kind.value)
    _refuse(c, command, Refusal(text, RefusalCode.INVALID), tick)


def cancelled(c: Carried, reason: str, tick: Tick) -> None:
    """Takes a workflow cancellation as a kill. The server takes only one per run, so this run ends as soon as it may."""
    apply(c, read_cancellation(reason, tick.new_id("command")), tick)
    c.hand_over = True


def unknown_signal(c: Carried, name: str, tick: Tick) -> None:
    """Handles a signal with an unknown name: logs a refusal that suggests the nearest name, and warns the operator."""
    shown, nearest = name[:64], nearest_name(name)
    text = f"unknown signal {shown!r}; did you mean {nearest!r}?"
    warn(c, Topic.UNKNOWN_SIGNAL, text, shown)
    summary = f"{shown} refused by temporal: {text}"
    queue_row(c, decision_row(c, DecisionType.CONTROL, summary, tick, reasons=[text]))


def finish_restart(c: Carried, error: str | None, tick: Tick) -> None:
    """The last step of a restart: the desk runs only if the latch was cleared and no kill came meanwhile."""
    restart, c.restart = c.restart, None
    assert restart is not None
    if error is None and c.kill_number != restart.kill_number:
        error = "a kill came while the restart was under way"
    # The desk is killed, and somebody may meanwhile have asked it to cancel or to deleverage.
    error = error or moving.refusal(c, restart.command)
    if error:
        # The latch may be cleared all the same, if only the answer was lost. A new kill number sets it again.
        fresh, c.latched_number = tick.new_id("kill"), 0
        if c.kill_number <= restart.kill_number or not keeps_the_id_of_a_kill(c.schema_version):
            c.kill_number, c.kill_id = max(c.kill_number, restart.kill_number + 1), fresh
        # Otherwise a newer kill has set number and id already. Its row may be on its way to the database; with a new id it would
        # not be recognised there.
        _refuse_late(c, restart.command, Refusal(error, RefusalCode.CONFLICT), tick)
        return
    remember(c, restart.command, Outcome.APPLIED, tick)
    latch.restart_applied(c, restart.row.decision_id, restart.kill_number)
    if restart.command.terms:
        terms.adopt(c, restart.command.terms)
    c.kill, c.hand_over = None, True
    unwarn(c, Topic.POSITION_GREW)
    c.deleverages = [d for d in c.deleverages if d.order_id or not d.automatic]
    # A person has looked: drawdown and the day's loss start over from here.
    c.risk = RiskMemory()
    c.last_decision = restart.row
    enter(c, transition(c.state, CommandKind.RESTART).state, restart.command, tick)


def finish_addition(c: Carried, reading: Observation | str, tick: Tick) -> None:
    """The last step of adding symbols. `reading` is what the venue shows of them, or why it shows nothing."""
    addition, c.addition = c.addition, None
    assert addition is not None
    if refusal := adding.finish(c, addition, reading, tick):
        _refuse_late(c, addition.command, refusal, tick)


def _refuse_late(c: Carried, command: Command, refusal: Refusal, tick: Tick) -> None:
    """Refuses a command that was pending."""
    known = c.commands.get(command.command_id)
    if known is None or known.kind is command.kind:
        _refuse(c, command, refusal, tick)
    else:
        # A kill has used the same id meanwhile; the record now holds the kill's outcome.
        _log_refusal(c, command, refusal.detail, tick)


def _refusal(c: Carried, command: Command, tick: Tick) -> Refusal | None:
    """Why the desk takes no command of this kind now, whatever its facts."""
    if refused := transition(c.state, command.kind).refusal:
        return Refusal(refused, RefusalCode.CONFLICT)
    if command.sent_at and tick.now - command.sent_at > MAX_COMMAND_AGE:
        return Refusal("it reached the coordinator more than 24 h after it was sent", RefusalCode.EXPIRED)
    if command.problem and command.kind not in (CommandKind.PAUSE, CommandKind.RESUME):
        return Refusal(command.problem, RefusalCode.INVALID)
    return None


def _carry_out(c: Carried, command: Command, tick: Tick) -> Refusal | None:
    """Carries out the command, or says why not, in which case nothing has changed."""
    refusal: Refusal | None = None
    match command:
        case _ if command.kind is CommandKind.PAUSE:
            _pause(c, command, tick)
        case _ if command.kind is CommandKind.RESUME:
            queue_row(c, _change_state(c, command, tick))
        case CancelAll():
            refusal = _cancel_all(c, command, tick)
        case Deleverage():
            refusal = _deleverage(c, command, tick)
        case SetLimits():
            refusal = _set_limits(c, command, tick)
        case Restart():
            refusal = _restart(c, command, tick)
        case AddSymbols():
            refusal = adding.ask(c, command, tick)
        case Propose():
            refusal = inbox.propose(c, command, tick)
        case _:
            refusal = Refusal("its facts are missing", RefusalCode.INVALID)
    return refusal


def _pause(c: Carried, command: Command, tick: Tick) -> None:
    row = _change_state(c, command, tick)
    waiting = next((p for p in c.orders if p.adds_risk and p.phase is not OrderPhase.UNKNOWN), None)
    if waiting and waiting.pause_row is None:
        # Write the row once the order's fate is known: only then can it say whether the pause stopped the order.
        waiting.pause_row = row
    else:
        queue_row(c, row)


def _change_state(c: Carried, command: Command, tick: Tick) -> Decision:
    state = transition(c.state, command.kind).state
    repeated = state is c.state
    remember(c, command, Outcome.APPLIED, tick, repeated=repeated)
    if not repeated:
        enter(c, state, command, tick)
    return control_row(c, command, "repeated" if repeated else "applied", tick)


def _cancel_all(c: Carried, command: CancelAll, tick: Tick) -> Refusal | None:
    if refusal := _strange(c, command.symbols or []):
        return refusal
    symbols = command.symbols or covered_symbols(c.symbols, c.seen_symbols)
    record = remember(c, command, Outcome.APPLIED, tick)
    record.symbols = symbols
    issue_cancels(c, record, symbols, tick)
    queue_row(c, control_row(c, command, "applied", tick))
    return None


def _deleverage(c: Carried, command: Deleverage, tick: Tick) -> Refusal | None:
    if len(c.deleverages) >= MAX_DELEVERAGES:
        text = f"{MAX_DELEVERAGES} deleverages are waiting already; try again later"
        return Refusal(text, RefusalCode.BUSY)
    if refusal := _strange(c, [command.symbol]):
        return refusal
    remember(c, command, Outcome.PENDING, tick)
    pending = PendingDeleverage(command=command, symbol=command.symbol, reduce_pct=command.reduce_pct)
    c.deleverages.append(pending)
    return None


def _strange(c: Carried, symbols: list[str]) -> Refusal | None:
    """Refuses a symbol that the desk neither trades nor holds."""
    allowed = dict.fromkeys(covered_symbols(c.symbols, c.seen_symbols))
    strange = [symbol for symbol in symbols if symbol not in allowed]
    if not strange:
        return None
    text = f"{strange[0]} is neither whitelisted nor held; allowed are {few(list(allowed))}"
    return Refusal(text, RefusalCode.INVALID)


def _restart(c: Carried, command: Restart, tick: Tick) -> Refusal | None:
    if refusal := _check_restart(c, command):
        return refusal
    if command.database_id and identity.is_other(c, command.database_id):
        record = remember(c, command, Outcome.APPLIED, tick)
        record.detail = "the desk has moved to the other database first, and stays killed"
        identity.adopt(c, command.database_id, tick)
        return None
    remember(c, command, Outcome.PENDING, tick)
    changed_terms = terms.changes(terms.terms_of(c), command.terms) if command.terms else []
    shown = "; ".join([command.reason or "no reason given", *changed_terms])
    row = control_row(c, command, "applied", tick, shown=shown)
    latch.restart_tried(c, row.decision_id)
    c.restart = PendingRestart(command=command, kill_number=command.kill_number, kill_id=c.kill_id, row=row)
    return None


def _check_restart(c: Carried, command: Restart) -> Refusal | None:
    if c.hand_over:
        # If a cancellation ends this run, the server drops any second one. A restart accepted now would undo that kill.
        text = "the coordinator is about to continue as a new run; try again in a moment"
    elif command.kill_number != c.kill_number:
        text = f"kill_number is {c.kill_number}, not {command.kill_number}: a kill came since you looked"
    elif c.restart is not None:
        text = "another restart is under way"
    elif c.orders:
        text = f"the fate of order {c.orders[0].order.order_id} is unknown; wait until it is settled"
    elif identity.is_other(c, command.database_id):
        # The other database is about to become the desk's. It cannot hold the kill yet.
        return None
    elif not c.latched or (c.kill and not c.kill.row_written):
        text = "the kill's own row and latch are not in the database yet; wait until they are"
    elif refused := terms.refusal(c, command):
        text = refused
    else:
        return None
    return Refusal(text, RefusalCode.CONFLICT)


def _set_limits(c: Carried, command: SetLimits, tick: Tick) -> Refusal | None:
    try:
        limits, changes = changed(c.limits, command.limits)
    except ValueError as error:
        return Refusal(str(error), RefusalCode.INVALID)
    looser = [str(change) for change in changes if change.loosens]
    if looser and c.state is not State.PAUSED:
        how = "restart the desk, then pause it" if c.state is State.KILLED else "pause the desk first"
        text = f"this loosens {', '.join(looser)}; {how} (tightening needs no pause)"
        return Refusal(text, RefusalCode.CONFLICT)
    record = remember(c, command, Outcome.APPLIED, tick, repeated=not changes)
    c.limits = limits
    # Earlier warnings were about the old number.
    names = {change.name for change in changes}
    c.risk = c.risk.without_warnings([limit.name for limit in PORTFOLIO_LIMITS if names & {*limit.numbers}])
    text = "; ".join(map(str, changes)) or "no change"
    values = vars(limits)
    record.detail, record.limits = text, {name: str(values[name]) for name in command.limits}
    reason = f"{text} ({command.reason})" if command.reason else text
    queue_row(c, control_row(c, command, "applied" if changes else "repeated", tick, shown=reason))
    return None


def _refuse(c: Carried, command: Command, refusal: Refusal, tick: Tick) -> None:
    record = remember(c, command, Outcome.REFUSED, tick)
    record.detail, record.code = refusal
    _log_refusal(c, command, refusal.detail, tick)


def _log_refusal(c: Carried, command: Command, detail: str, tick: Tick) -> None:
    queue_row(c, control_row(c, command, "refused", tick, detail))
