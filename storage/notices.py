"""Notices: each event that people are to hear of, once for each channel. `storage/notice_queue.py` sends them.

Workers and APIs look for events. Each of them locks the desk's row first, so that an event is noted once. Notices are deleted
in the end: a desk keeps its newest MOST_KEPT, sent or not.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, Select, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from domain import notices as domain_notices
from domain.desk.status import Status
from domain.notices import SILENT_CYCLES, DeskDay, Notice
from domain.trading.decisions import Decision
from storage.cleaning import clean, clean_values
from storage.clock import server_time
from storage.tables import IS_TOLD, decisions, notice_channels, notice_desks, notices

# More than OVERLAP rows for each of 20 channels: a row that is read again must find its notice, or people would be told twice.
MOST_KEPT = 5_000
MOST_ROWS = 500
# A row with a lower number may be committed later, so this many rows are read again.
OVERLAP = 100
# A coordinator that started at most this long before the first look is still announced.
JUST_NOW = timedelta(seconds=60)
# If nobody looked for longer than this, a channel skips what is older: otherwise old kills would be announced as new.
LONGEST_PAUSE = timedelta(hours=1)
LOOKED_EVERY = timedelta(minutes=1)
# Longer than a reading takes, so that a summary includes the last readings of its day.
AFTER_MIDNIGHT = timedelta(minutes=1)


class Watched(NamedTuple):
    """The desk whose events are noted, and the channels: each with True if it gets critical events only.

    `may_tell_silence`: whether this process has run for long enough to know that the coordinator is silent. `watching`: how long
    the process has been trying to look; a time without the database counts as watched. `seen_for`: for how long the process has
    seen what is open, by the event's id.
    """

    desk: str
    channels: Mapping[str, bool]
    may_tell_silence: bool
    watching: timedelta = timedelta(0)
    seen_for: Mapping[str, timedelta] = MappingProxyType({})


def note_events(connection: Connection, watched: Watched, status: Status | None) -> int:
    """Notes the new events in the log and in the coordinator's status. Returns how many notices are new."""
    now, desk = server_time(connection), _locked(connection, watched.desk)
    # Without the index each look would read the whole log: what is written meanwhile is noted once the index is built.
    indexed = bool(connection.scalar(text(_INDEXED)))
    if desk is None:
        _begin(connection, watched.desk, status, now, _newest(connection, watched.desk, indexed=indexed))
    begun = _channels(connection, watched, now, indexed=indexed)
    if desk is None:
        return 0
    logged, changes = _from_log(connection, desk) if indexed else ([], {})
    found = _from_cycles(desk, watched, status, now, changes)
    if status is not None:
        found += _start(desk, status, changes) + domain_notices.of_status(status, now, watched.seen_for)
    if changes:
        mine = notice_desks.c.desk == clean(watched.desk)
        connection.execute(update(notice_desks).where(mine).values(changes))
    events = {
        name: [notice for written, notice in logged if written > begun[name]] + found for name in watched.channels
    }
    return _note(connection, watched, events)


def summarise(connection: Connection, watched: Watched) -> int:
    """Notes the summary of the previous day, once; none for a day on which nobody looked. Locks the desk only if it is due."""
    now, c = server_time(connection), notice_desks.c
    day = (now - AFTER_MIDNIGHT).astimezone(UTC).date() - timedelta(days=1)
    # If a clock was ahead, a day that is still to come has its summary already.
    is_due = or_(c.summarised < day, c.summarised > day + timedelta(days=1))
    mine = (c.desk == clean(watched.desk), is_due)
    if connection.scalar(select(c.desk).where(*mine)) is None:
        return 0
    notice = domain_notices.summary(desk_day(connection, watched.desk, day), now)
    first = connection.scalar(update(notice_desks).where(*mine).values(summarised=day).returning(c.desk))
    return tell(connection, watched, [notice]) if first is not None else 0


def tell(connection: Connection, watched: Watched, found: Sequence[Notice]) -> int:
    """Notes events that the caller has found, each once for each channel. Returns how many notices are new."""
    return _note(connection, watched, dict.fromkeys(watched.channels, found))


def _note(connection: Connection, watched: Watched, events: Mapping[str, Sequence[Notice]]) -> int:
    rows = [
        clean_values({"desk": watched.desk, "channel": channel, **notice.model_dump()})
        for channel, found in events.items()
        for notice in domain_notices.wanted(found, critical_only=watched.channels[channel])
    ]
    if not rows:
        return 0
    added = insert(notices).on_conflict_do_nothing().returning(notices.c.number)
    count = len(connection.execute(added, rows).all())
    if count:
        _prune(connection, watched.desk)
    return count


def _prune(connection: Connection, desk: str) -> None:
    mine = notices.c.desk == clean(desk)
    newest = select(notices.c.number).where(mine).order_by(notices.c.number.desc())
    oldest = newest.offset(MOST_KEPT).limit(1).scalar_subquery()
    connection.execute(delete(notices).where(mine, notices.c.number <= oldest))


def _locked(connection: Connection, desk: str) -> RowMapping | None:
    statement = select(notice_desks).where(notice_desks.c.desk == clean(desk)).with_for_update()
    return connection.execute(statement).mappings().one_or_none()


def _begin(connection: Connection, desk: str, status: Status | None, now: datetime, newest: int) -> None:
    """Notes where the desk's log and cycles stand now: nothing older is announced."""
    values: dict[str, Any] = {"desk": desk, "begun_at": now - JUST_NOW, "begun": newest, "read": newest}
    values |= {"summarised": now.astimezone(UTC).date() - timedelta(days=1), "cycle_seconds": 60.0}
    if status is not None:
        values |= {"cycle_seconds": status.cycle_seconds, "cycle_at": _cycle_at(status), "cycle_seen_at": now}
    connection.execute(insert(notice_desks).values(clean_values(values)).on_conflict_do_nothing())


def _channels(connection: Connection, watched: Watched, now: datetime, *, indexed: bool) -> dict[str, int]:
    """The row number behind which each channel's events begin: the newest for a new channel; after a long pause, a later one."""
    found, paused = _known(connection, watched), now - watched.watching - LONGEST_PAUSE
    begun = {name: int(row["begun"]) for name, row in found.items()}
    if new := watched.channels.keys() - begun.keys():
        begun |= dict.fromkeys(new, _newest(connection, watched.desk, indexed=indexed))
    anew = [name for name, row in found.items() if row["looked_at"] < paused]
    if anew:
        _end_waiting(connection, watched.desk, anew, paused)
    if anew and indexed:
        behind = _behind(connection, watched.desk, paused)
        begun |= {name: max(begun[name], behind) for name in anew}
    # Without the index it is not known where such a channel goes on: `looked_at` stays, so that a later look finds out.
    waits = [] if indexed else anew
    # If a clock was ahead, a long pause would not be noticed until then.
    fresh = [name for name, row in found.items() if abs(now - row["looked_at"]) <= LOOKED_EVERY]
    stale = [name for name in begun.keys() - waits if name not in fresh]
    _note_looked(connection, watched.desk, now, {name: begun[name] for name in stale})
    return begun


def _known(connection: Connection, watched: Watched) -> dict[str, RowMapping]:
    c = notice_channels.c
    known = select(c.channel, c.begun, c.looked_at).where(
        c.desk == clean(watched.desk), c.channel.in_(watched.channels)
    )
    return {row["channel"]: row for row in connection.execute(known).mappings()}


def _note_looked(connection: Connection, desk: str, now: datetime, begun: Mapping[str, int]) -> None:
    if not begun:
        return
    fresh = {"desk": clean(desk), "failures": 0, "looked_at": now}
    noted = insert(notice_channels)
    changed = {"begun": noted.excluded.begun, "looked_at": noted.excluded.looked_at}
    noted = noted.on_conflict_do_update(index_elements=["desk", "channel"], set_=changed)
    connection.execute(noted, [fresh | {"channel": name, "begun": begun[name]} for name in begun])


def _end_waiting(connection: Connection, desk: str, channels: Sequence[str], paused: datetime) -> None:
    """Deletes what has waited for these channels since before the pause: old news, like the log's rows of that time."""
    c = notices.c
    waiting = (c.desk == clean(desk), c.channel.in_(channels), c.sent_at.is_(None))
    connection.execute(delete(notices).where(*waiting, c.at < paused))


def _behind(connection: Connection, desk: str, paused: datetime) -> int:
    """The number before that of the first row since `paused`. Older rows with higher numbers are announced too."""
    # The sum makes PostgreSQL search by time; by number it would read all older rows.
    first = _rows(desk, func.min(decisions.c.written + 0)).where(decisions.c.timestamp >= paused)
    found = connection.scalar(first)
    return _newest(connection, desk, indexed=True) if found is None else int(found) - 1


def _rows(desk: str, *columns: Any) -> Select[Any]:
    return select(*columns).where(decisions.c.desk == clean(desk), IS_TOLD)


def _newest(connection: Connection, desk: str, *, indexed: bool) -> int:
    """The number of the row that was written last; without the index, of the last row of any desk."""
    newest = _rows(desk, func.max(decisions.c.written)) if indexed else text(_NUMBERED)
    return int(connection.scalar(newest) or 0)


_NUMBERED = "SELECT pg_sequence_last_value('decisions_written')"


_INDEXED = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('decisions_as_written')"


def _from_log(connection: Connection, desk: RowMapping) -> tuple[list[tuple[int, Notice]], dict[str, Any]]:
    """The new rows of the decision log in the order in which they were written, and the changes to the desk's row."""
    written = decisions.c.written
    earlier = _rows(desk["desk"], written).where(written <= desk["read"]).order_by(written.desc())
    since = max(desk["begun"], connection.scalar(earlier.offset(OVERLAP).limit(1)) or 0)
    statement = _rows(desk["desk"], decisions).where(written > since)
    found = connection.execute(statement.order_by(decisions.c.written).limit(MOST_ROWS)).mappings().all()
    numbered = [(row["written"], domain_notices.of_row(Decision.model_validate(dict(row)))) for row in found]
    read = max((row["written"] for row in found), default=0)
    return [(number, notice) for number, notice in numbered if notice], {"read": read} if read > desk["read"] else {}


def _from_cycles(
    desk: RowMapping, watched: Watched, status: Status | None, now: datetime, changes: dict[str, Any]
) -> list[Notice]:
    """Silence and its end. Only the database's clock counts, so that all processes agree."""
    if status and _is_newer(status, desk):
        changes |= {"cycle_at": _cycle_at(status), "cycle_seen_at": now, "cycle_seconds": status.cycle_seconds}
        if desk["silent_since"] is None:
            return []
        changes["silent_since"] = None
        return [domain_notices.speaks_again(desk["silent_since"], now)]
    if desk["cycle_seen_at"] is None or desk["silent_since"] is not None or not watched.may_tell_silence:
        return []
    if desk["cycle_seen_at"] > now:
        # A clock was ahead: silence is counted from now on.
        changes["cycle_seen_at"] = now
    if now - desk["cycle_seen_at"] <= SILENT_CYCLES * timedelta(seconds=desk["cycle_seconds"]):
        return []
    changes["silent_since"] = desk["cycle_seen_at"]
    return [domain_notices.silent(desk["cycle_at"], now)]


def _is_newer(status: Status, desk: RowMapping) -> bool:
    """Whether the status is of a newer cycle than the known one: a late answer must not end a silence."""
    if desk["cycle_at"] is None or desk["started_at"] not in (None, status.started_at):
        return True
    known: datetime = desk["cycle_at"]
    return _cycle_at(status) > known


def _cycle_at(status: Status) -> datetime:
    return status.last_cycle_at or status.started_at


def _start(desk: RowMapping, status: Status, changes: dict[str, Any]) -> list[Notice]:
    if status.started_at == desk["started_at"]:
        return []
    changes["started_at"] = status.started_at
    return [domain_notices.started(status)] if status.started_at > desk["begun_at"] else []


def desk_day(connection: Connection, desk: str, day: date) -> DeskDay:
    """The figures of a UTC day."""
    begin = datetime.combine(day, time(), UTC)
    within = {"desk": clean(desk), "begin": begin, "end": begin + timedelta(days=1)}
    first, last, deepest = connection.execute(_MONEY, within).one()
    trades = connection.scalar(_TRADES, within) or 0
    refusals = {code: int(count) for code, count in connection.execute(_REFUSALS, within)}
    return DeskDay(day, last, first, deepest, trades, refusals)


_MONEY = text("""
SELECT (array_agg(equity ORDER BY time))[1], (array_agg(equity ORDER BY time DESC))[1], max(drawdown)
FROM equity WHERE desk = :desk AND time >= :begin AND time < :end
""")
_TRADES = text("""
SELECT (SELECT count(*) FROM paper.fills WHERE desk = :desk AND filled_at >= :begin AND filled_at < :end)
    + (SELECT count(*) FROM live.fills WHERE desk = :desk AND filled_at >= :begin AND filled_at < :end)
""")
# The first condition uses the index of groups: refused orders are one group.
_REFUSALS = text("""
SELECT split_part(reason, ':', 1), count(*)
FROM decisions CROSS JOIN LATERAL jsonb_array_elements_text(risk_reasons) AS reason
WHERE decision_group(desk, decision_type, risk_passed, NULL, NULL) = decision_group(:desk, 'order_intent', false, NULL, NULL)
    AND desk = :desk AND decision_type = 'order_intent' AND risk_passed = false AND timestamp >= :begin AND timestamp < :end
GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10
""")
