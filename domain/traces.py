"""What every change of the carried state leaves behind: its moment and ids, its command's record, its row, its warnings."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from domain.carried import MAX_WARNINGS, Carried, CommandRecord, Outcome
from domain.commands import MAX_REMEMBERED_REASON_CHARS, Command
from domain.decisions import Decision, DecisionType
from domain.states import CommandKind, State
from domain.values import printable

MAX_COMMAND_AGE = timedelta(hours=24)
KEPT_COMMANDS = 1_000
MAX_KEPT_COMMANDS = 5_000
# Commands whose id we made ourselves, so that nobody waits for their outcome by it. A flood of them pushes out no other.
KEPT_UNNAMED = 200
# Symbols that get cancels in one workflow task, counted once for each command; past it, once for all.
MAX_ISSUED_AT_ONCE = 400


class Issued:
    """The symbols for which cancels were prepared at this very moment: no call can have begun since, so that the same cancels
    may stand for all commands of the moment. The first few have their own all the same."""

    def __init__(self) -> None:
        self._symbols: set[str] = set()
        self._count = 0

    def left(self, symbols: list[str]) -> list[str]:
        """Those of a command's symbols that need cancels of its own."""
        if self._count + len(symbols) > MAX_ISSUED_AT_ONCE:
            symbols = [symbol for symbol in symbols if symbol not in self._symbols]
        self._count += len(symbols)
        self._symbols.update(symbols)
        return symbols


class Tick(NamedTuple):
    """The moment of a change, and a maker of ids (`new_id("decision")`): the workflow's clock and random numbers.

    `issued` is there where several commands share the moment; None where one command comes at a time.
    """

    now: datetime
    new_id: Callable[[str], str]
    issued: Issued | None = None


def warn(c: Carried, text: str) -> None:
    """Keeps the newest few warnings, each once."""
    text = printable(text)
    c.warnings = [*(w for w in c.warnings if w != text), text][-MAX_WARNINGS:]


def unwarn(c: Carried, beginning: str) -> None:
    """Takes back the warnings that begin so: what they told is over."""
    c.warnings = [warning for warning in c.warnings if not warning.startswith(printable(beginning))]


def enter(c: Carried, state: State, command: Command, tick: Tick) -> None:
    """From now on the desk is in this state, and the command says why."""
    c.state, c.since, c.reason, c.actor = state, tick.now, command.reason, command.actor


def remember(c: Carried, command: Command, outcome: Outcome, tick: Tick, repeated: bool = False) -> CommandRecord:
    """The command's record in the dedupe window, made or made anew."""
    before = c.commands.pop(command.command_id, None)
    again = before is not None and before.fingerprint != command.fingerprint
    record = CommandRecord(
        command_id=command.command_id,
        kind=command.kind,
        fingerprint=command.fingerprint,
        outcome=outcome,
        at=tick.now,
        actor=command.actor,
        # Thousands of these are carried over; the log has the whole reason.
        reason=command.reason[:MAX_REMEMBERED_REASON_CHARS],
        repeated=repeated,
        reused_id=again,
        # An id that issued cancels before goes on counting, so that its instructions are new ones.
        rounds=before.rounds if before else c.forgotten_rounds,
        symbol=command.symbol,
        reduce_pct=command.reduce_pct,
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
    if oldest and not _needed(c, oldest):
        del c.commands[oldest.command_id]


def _needed(c: Carried, record: CommandRecord) -> bool:
    """Whether its outcome is still to come, or it counts the kill's rounds."""
    return record.outcome is Outcome.PENDING or (c.kill is not None and record.command_id == c.kill.command_id)


def forget_old_commands(c: Carried, tick: Tick) -> None:
    """Keeps the dedupe window within its bounds."""
    # A dict keeps the order in which its keys came, so the first record is the oldest. Bounded: most of the time none
    # has to go, and a flood lets one go for each that comes.
    for _ in range(len(c.commands) - KEPT_COMMANDS):
        oldest = next(iter(c.commands.values()))
        young = tick.now - oldest.at < MAX_COMMAND_AGE
        if young and len(c.commands) <= MAX_KEPT_COMMANDS:
            return
        del c.commands[oldest.command_id]
        forget_rounds(c, oldest)
        if _needed(c, oldest):
            # Kept as if it were the newest.
            c.commands[oldest.command_id] = oldest


def forget_rounds(c: Carried, *records: CommandRecord) -> None:
    """Notes how far these had counted: their ids may come again, and their instructions are in the database."""
    c.forgotten_rounds = max(c.forgotten_rounds, *(record.rounds for record in records), 0)


def control_row(
    c: Carried, command: Command, word: str, tick: Tick, detail: str | None = None, shown: str | None = None
) -> Decision:
    """The row of a command. `detail` is why it was refused, `shown` stands where else its reason would."""
    told = detail or shown or command.reason or "no reason given"
    row = Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=DecisionType.CONTROL,
        summary=printable(f"{command.kind.value} {word} by {command.actor}: {told}"),
        risk_reasons=[detail] if detail else [],
        desk=c.desk,
        symbol=command.symbol,
        command_id=command.command_id,
        source=command.source.value if command.kind is CommandKind.KILL else None,
    )
    c.last_decision = row
    return row
