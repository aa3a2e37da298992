"""What notifications tell people, and in which words.

An event becomes a notice once for each channel that wants its kind. Everything here is made from what the database and the
coordinator say. Nothing here sends.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from domain.audit import AuditFault
from domain.desk.carried import Outcome
from domain.desk.states import CommandKind, Mode
from domain.desk.status import Status
from domain.trading.assessment import Level
from domain.trading.decisions import Decision
from domain.values import Moment, Value, digits, iso, plain, printable

# How much of what is left of a kill one notice names.
MOST_LEFT = 5
OPEN_TOO_LONG = timedelta(seconds=60)
_NEVER_SEEN: Mapping[str, timedelta] = MappingProxyType({})
SILENT_CYCLES = 3
# Up to this many notices of one kind per minute are sent one by one. Any more are gathered in one message.
MOST_SINGLE = 5
GATHERED_WITHIN = timedelta(seconds=60)
MAX_TEXT_CHARS = 500
# Of each notice that is gathered with others: services refuse messages of more than 1,000, 1,024 or 2,000 characters.
MAX_GATHERED_CHARS = 150
# A truncated checkpoint proves nothing. It takes about 120 characters per desk, plus 400.
MAX_CHECKPOINT_CHARS = 100_000
TOO_LONG = (
    "It signs too many desks for a message. The complete one is the newest row of the table audit_checkpoints, column text. Copy "
    "it to where nobody who may write to the database can reach it. `ais audit checkpoint` prints another one"
)


class NoticeKind(StrEnum):
    """What happened."""

    KILL = "kill"
    REDUCTION = "reduction"
    INSTRUCTION_OPEN = "instruction_open"
    KILL_NOT_OVER = "kill_not_over"
    SILENT = "silent"
    SPEAKS_AGAIN = "speaks_again"
    AUDIT_BROKEN = "audit_broken"
    START = "start"
    RESTART = "restart"
    PAUSE = "pause"
    RESUME = "resume"
    LIMITS = "limits"
    SYMBOLS = "symbols"
    CHECKPOINT = "checkpoint"
    SUMMARY = "summary"
    TEST = "test"

    @property
    def is_critical(self) -> bool:
        """Whether channels of the level `critical` are told, too."""
        return self in _CRITICAL

    @property
    def heading(self) -> str:
        """The heading in a message's first line."""
        return _HEADINGS[self]


_CRITICAL = frozenset(
    {
        NoticeKind.KILL,
        NoticeKind.REDUCTION,
        NoticeKind.INSTRUCTION_OPEN,
        NoticeKind.KILL_NOT_OVER,
        NoticeKind.SILENT,
        # Whoever was told of the silence is waiting for this.
        NoticeKind.SPEAKS_AGAIN,
        NoticeKind.AUDIT_BROKEN,
        NoticeKind.TEST,
    }
)
_HEADINGS = {
    NoticeKind.KILL: "KILLED",
    NoticeKind.REDUCTION: "automatic reduction",
    NoticeKind.INSTRUCTION_OPEN: "instruction not confirmed",
    NoticeKind.KILL_NOT_OVER: "kill not over",
    NoticeKind.SILENT: "coordinator silent",
    NoticeKind.SPEAKS_AGAIN: "coordinator is back",
    NoticeKind.AUDIT_BROKEN: "audit broken",
    NoticeKind.START: "started",
    NoticeKind.RESTART: "restarted",
    NoticeKind.PAUSE: "paused",
    NoticeKind.RESUME: "resumed",
    NoticeKind.LIMITS: "limits changed",
    NoticeKind.SYMBOLS: "symbols added",
    NoticeKind.CHECKPOINT: "audit checkpoint",
    NoticeKind.SUMMARY: "daily summary",
    NoticeKind.TEST: "test",
}
_OF_COMMAND: dict[str, NoticeKind] = {
    CommandKind.KILL: NoticeKind.KILL,
    CommandKind.RESTART: NoticeKind.RESTART,
    CommandKind.PAUSE: NoticeKind.PAUSE,
    CommandKind.RESUME: NoticeKind.RESUME,
    CommandKind.SET_LIMITS: NoticeKind.LIMITS,
    CommandKind.ADD_SYMBOLS: NoticeKind.SYMBOLS,
}


class Notice(Value):
    """One event. Its id is the same whoever notices it, and however often."""

    event_id: str
    kind: NoticeKind
    at: Moment
    text: str


class DeskDay(NamedTuple):
    """What a desk's day amounts to; None where nothing was measured."""

    day: date
    equity: Decimal | None
    first_equity: Decimal | None
    drawdown: Decimal | None
    trades: int
    refusals: dict[str, int]


class NoticeMessage(NamedTuple):
    """A message as a channel gets it."""

    title: str
    body: str
    is_critical: bool


def of_row(row: Decision) -> Notice | None:
    """The notice for a row of the decision log: an applied command, or a limit that reduces."""
    if row.source == Level.SOFT.name.lower():
        kind: NoticeKind | None = NoticeKind.REDUCTION
    elif row.command and row.result == Outcome.APPLIED:
        kind = _OF_COMMAND.get(row.command)
    else:
        kind = None
    if kind is None:
        return None
    return Notice(event_id=row.decision_id, kind=kind, at=row.timestamp, text=row.summary)


def of_status(status: Status, now: datetime, seen_for: Mapping[str, timedelta] = _NEVER_SEEN) -> list[Notice]:
    """Notices for what has been open too long, by the clocks or by `seen_for`: how long the caller has seen each event, by id.

    Temporal's clock says since when. While it is ahead, nobody would hear of a kill that does not end.
    """
    found = []
    for since, notice in _open_now(status, now):
        if max(now - since, seen_for.get(notice.event_id, timedelta(0))) >= OPEN_TOO_LONG:
            found.append(notice)
    return found


def open_events(status: Status) -> list[str]:
    """The ids of everything in the status that is a notice once it has been open too long."""
    return [notice.event_id for _, notice in _open_now(status, status.started_at)]


def _open_now(status: Status, now: datetime) -> Iterator[tuple[datetime, Notice]]:
    """What is open, and since when. In shadow nothing is sent, so nothing can be confirmed."""
    if status.mode is Mode.SHADOW:
        return
    for i in status.open_instructions:
        why = f": {i.last_error}" if i.last_error else ""
        text = f"{i.tool} {i.symbol} is {i.outcome} since {iso(i.since)}, after {i.attempts} attempts{why}"
        kind = NoticeKind.INSTRUCTION_OPEN
        yield i.since, Notice(event_id=f"{kind}:{i.instruction_id}", kind=kind, at=now, text=text)
    if (kill := status.kill) and not kill.is_over:
        more = ["and more: `ais status`"] if len(kill.residue) > MOST_LEFT else []
        left = "; ".join([*kill.residue[:MOST_LEFT], *more]) or kill.progress
        text = f"Kill {status.kill_number} of {iso(kill.at)} is not over: {left}"
        event_id = f"{NoticeKind.KILL_NOT_OVER}:{status.kill_number}:{kill.at.isoformat()}"
        yield kill.at, Notice(event_id=event_id, kind=NoticeKind.KILL_NOT_OVER, at=now, text=text)


def started(status: Status) -> Notice:
    """The coordinator has started."""
    text = f"The coordinator runs in {status.mode} mode, every {status.cycle_seconds:g} s: {', '.join(status.symbols)}"
    event_id = f"{NoticeKind.START}:{status.started_at.isoformat()}"
    return Notice(event_id=event_id, kind=NoticeKind.START, at=status.started_at, text=text)


def silent(last_cycle: datetime, now: datetime) -> Notice:
    """No cycle for too long."""
    text = f"The coordinator's last cycle was at {iso(last_cycle)}. No order goes out; look at `ais doctor`"
    return Notice(event_id=f"silent:{last_cycle.isoformat()}", kind=NoticeKind.SILENT, at=now, text=text)


def speaks_again(silent_since: datetime, now: datetime) -> Notice:
    """A silence has ended."""
    kind, text = (
        NoticeKind.SPEAKS_AGAIN,
        f"The coordinator runs cycles again. It had been silent since {iso(silent_since)}",
    )
    return Notice(event_id=f"{kind}:{silent_since.isoformat()}", kind=kind, at=now, text=text)


def summary(day: DeskDay, now: datetime) -> Notice:
    """Summary of the day that has just ended."""
    if day.equity is None or day.first_equity is None or day.drawdown is None:
        money = "no reading of the account"
    else:
        change = digits(day.equity - day.first_equity)
        money = f"equity {digits(day.equity)} ({change if change.startswith('-') else '+' + change})"
        money += f", deepest drawdown {plain((day.drawdown * 100).quantize(Decimal('0.01')))} %"
    refused = ", ".join(f"{code} {count}" for code, count in day.refusals.items())
    text = f"{day.day}: {money}; {day.trades} trades; orders refused: {refused or 'none'}"
    return Notice(event_id=f"{NoticeKind.SUMMARY}:{day.day}", kind=NoticeKind.SUMMARY, at=now, text=text)


def checkpoint(at: datetime, document: str) -> Notice:
    """A signed checkpoint of the audit chain, complete, so that every recipient keeps a copy."""
    kind = NoticeKind.CHECKPOINT
    return Notice(event_id=f"{kind}:{at.isoformat()}", kind=kind, at=at, text=document)


def audit_broken(fault: AuditFault, since: datetime) -> Notice:
    """The running verification has found a fault again. All such faults count as one event until the chain is whole again."""
    where = f"row {fault.seq}" if fault.seq is not None else "no row of the chain"
    text = f"The audit chain of {fault.desk}: {fault.kind.value}: {where}: {fault.what}. "
    text += "Repair nothing: copy the database, and see `ais audit verify`"
    kind = NoticeKind.AUDIT_BROKEN
    return Notice(event_id=f"{kind}:{fault.desk}:{since.isoformat()}", kind=kind, at=since, text=text)


def message(desk: str, shown: Sequence[Notice], count: int) -> NoticeMessage:
    """One message for these notices, the first of `count` of one kind."""
    kind = shown[0].kind
    most = MAX_TEXT_CHARS if len(shown) == 1 else MAX_GATHERED_CHARS
    most = MAX_CHECKPOINT_CHARS if kind is NoticeKind.CHECKPOINT else most
    lines = [f"{iso(notice.at)}  {_cut(printable(notice.text), kind, most)}" for notice in shown]
    if count > len(shown):
        lines.append(f"{count - len(shown)} more of this kind")
    return NoticeMessage(f"AIS {desk}: {kind.heading}", "\n".join(lines), kind.is_critical)


def _cut(text: str, kind: NoticeKind, most: int) -> str:
    if len(text) > most and kind is NoticeKind.CHECKPOINT:
        # Part of it could not be verified.
        return TOO_LONG
    return text[:most]


def wanted(notices: Iterable[Notice], *, critical_only: bool) -> list[Notice]:
    """The notices that a channel of this level gets."""
    return [notice for notice in notices if notice.kind.is_critical or not critical_only]
