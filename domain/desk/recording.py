"""Records each change of the carried state: its time and ids, the record of its command, and its row in the decision log."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from domain.desk.carried import Carried, CommandRecord, Outcome
from domain.desk.commands import Command
from domain.desk.states import CommandKind, State
from domain.trading.decisions import Decision, DecisionType
from domain.values import printable

MAX_COMMAND_AGE = timedelta(hours=24)
MAX_REMEMBERED_REASON_CHARS = 100
KEPT_COMMANDS = 1_000
MAX_KEPT_COMMANDS = 5_000
# Commands whose id we made ourselves, so nobody waits for their outcome under it. A flood of them displaces no other
# command.
KEPT_UNNAMED = 200
# Symbols that get cancels in one workflow task. Up to this number, each command gets its own cancels; beyond it, commands
# share them.
MAX_ISSUED_AT_ONCE = 400


class Issued:
    """The symbols whose cancels were prepared in this workflow task. No call can have begun since, so one cancel may serve
    several commands of the task. The first few commands get their own anyway."""

    def __init__(self) -> None:
        self._symbols: set[str] = set()
        self._count = 0

    def left(self, symbols: list[str]) -> list[str]:
        """The symbols that need cancels of this command's own."""
        if self._count + len(symbols) > MAX_ISSUED_AT_ONCE:
            symbols = [symbol for symbol in symbols if symbol not in self._symbols]
        self._count += len(symbols)
        self._symbols.update(symbols)
        return symbols


class Tick(NamedTuple):
    """The time of a change, and a maker of ids (`new_id("decision")`), from the workflow's clock and random numbers.

    `issued` is set if several commands share one workflow task, otherwise None.
    """

    now: datetime
    new_id: Callable[[str], str]
    issued: Issued | None = None


def enter(c: Carried, state: State, command: Command, tick: Tick) -> None:
    """Puts the desk into this state, with the command's reason and actor."""
    c.state, c.since, c.reason, c.actor = state, tick.now, command.reason, command.actor


def remember(c: Carried, command: Command, outcome: Outcome, tick: Tick, repeated: bool = False) -> CommandRecord:
    """Makes the command's record in the dedupe window, replacing any older one."""
    before = c.commands.pop(command.command_id, None)
    again = before is not None and before.fingerprint != command.fingerprint
    record = CommandRecord(
        command_id=command.command_id,
        kind=command.kind,
        fingerprint=command.fingerprint,
        outcome=outcome,
        at=tick.now,
        actor=command.actor,
        # Thousands of records are carried over. The log has the whole reason.
        reason=command.reason[:MAX_REMEMBERED_REASON_CHARS],
        repeated=repeated,
        reused_id=again,
        # If the id has issued cancels before, the count continues, so that its instructions are new ones.
        rounds=before.rounds if before else c.forgotten_rounds,
        **command.remembered(),
    )
    c.commands[command.command_id] = record
    if not command.named:
        _forget_unnamed(c, command.command_id)
    return record


def _forget_unnamed(c: Carried, newest: str) -> None:
    c.unnamed.append(newest)
    if len(c.unnamed) <= KEPT_UNNAMED:
        return
    oldest = c.commands.get(c.unnamed.pop(0))
    if oldest and not is_needed(c, oldest):
        del c.commands[oldest.command_id]


def is_needed(c: Carried, record: CommandRecord) -> bool:
    """Whether the outcome is still pending, or the record counts the rounds of the kill in force, which may need more
    cancels."""
    return record.outcome is Outcome.PENDING or (c.kill is not None and record.command_id == c.kill.command_id)


def forget_old_commands(c: Carried, tick: Tick) -> None:
    """Keeps the dedupe window within its bounds."""
    # A dict keeps insertion order, so the first record is the oldest. The loop is bounded: usually none has to go, and in a
    # flood one goes for each that comes.
    for _ in range(len(c.commands) - KEPT_COMMANDS):
        oldest = next(iter(c.commands.values()))
        young = tick.now - oldest.at < MAX_COMMAND_AGE
        if young and len(c.commands) <= MAX_KEPT_COMMANDS:
            return
        del c.commands[oldest.command_id]
        forget_rounds(c, oldest)
        if is_needed(c, oldest):
            # Keep it, as if it were the newest.
            c.commands[oldest.command_id] = oldest


def forget_rounds(c: Carried, *records: CommandRecord) -> None:
    """Notes the highest round of these records: their ids may be reused, and the database holds their instructions."""
    c.forgotten_rounds = max(c.forgotten_rounds, *(record.rounds for record in records), 0)


def decision_row(
    c: Carried,
    decision_type: DecisionType,
    summary: str,
    tick: Tick,
    *,
    reasons: Sequence[str] = (),
    symbol: str | None = None,
    command_id: str | None = None,
    source: str | None = None,
    cycles: int = 1,
) -> Decision:
    """A row about something that the desk did by itself, or about a refusal that belongs to no command."""
    return Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=decision_type,
        summary=summary,
        risk_reasons=list(reasons),
        desk=c.desk,
        symbol=symbol,
        command_id=command_id,
        source=source,
        cycles=cycles,
    )


def control_row(
    c: Carried, command: Command, result: str, tick: Tick, detail: str | None = None, shown: str | None = None
) -> Decision:
    """The row of a command. `detail` says why it was refused; `shown` replaces the command's reason in the summary."""
    text = detail or shown or command.reason or "no reason given"
    return Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=DecisionType.CONTROL,
        summary=printable(f"{command.kind} {result} by {command.actor}: {text}"),
        risk_reasons=[detail] if detail else [],
        desk=c.desk,
        symbol=command.about,
        command_id=command.command_id,
        source=command.source.value if command.kind is CommandKind.KILL else None,
        command=command.kind.value,
        result=result,
    )
