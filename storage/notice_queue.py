"""The queue of each notification channel: takes the notices that wait, in their order, and notes whether they were sent.

To send, a process holds the channel for a while, so that one process sends at a time, in the order of events. If it dies after
sending a message and before noting that, the message is sent again: the target cannot be asked whether it has it.

A target may refuse one message for ever, for its length or its words. So after a failure the next kind has its turn: the oldest
notice came first each time, and a kill behind it was never sent.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select, update

from domain.notices import GATHERED_WITHIN, MOST_SINGLE, Notice, NoticeKind
from storage.cleaning import clean
from storage.clock import server_time
from storage.notices import MOST_KEPT
from storage.tables import notice_channels, notices

HELD_SECONDS = 60
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0
# A moment that is farther ahead than this was written by a clock that was: until then nobody would hear of a kill.
FARTHEST_HELD = timedelta(seconds=2 * HELD_SECONDS)
FARTHEST_PAUSE = timedelta(seconds=2 * LONGEST_PAUSE_SECONDS)
_KINDS = [kind.value for kind in NoticeKind]


class Dispatch(NamedTuple):
    """One message: the notices that it shows, and the numbers of all that it covers, which may be more."""

    shown: list[Notice]
    numbers: list[int]


def take(connection: Connection, desk: str, channel: str, me: str) -> Dispatch | None:
    """The next message of a channel; None if there is none, or another process holds the channel.

    The caller then holds the channel until `settle`, at most for HELD_SECONDS.
    """
    now = server_time(connection)
    failures = _hold(connection, desk, channel, me, now)
    if failures is None:
        return None
    dispatch = _next(connection, desk, channel, now, failures)
    if dispatch is None:
        _release(connection, desk, channel, me, {})
    return dispatch


def settle(connection: Connection, desk: str, channel: str, me: str, numbers: Sequence[int], error: str | None) -> bool:
    """Notes whether a message was sent, and releases the channel. False if another process holds the channel by now.

    A message that was sent is noted as sent even then.
    """
    now = server_time(connection)
    if error is None:
        connection.execute(update(notices).where(notices.c.number.in_(numbers)).values(sent_at=now))
        return _release(connection, desk, channel, me, {"failures": 0, "not_before": None, "last_error": None})
    failures = connection.scalar(select(notice_channels.c.failures).where(*_is_channel(desk, channel))) or 0
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 10), LONGEST_PAUSE_SECONDS)
    failed = {"failures": failures + 1, "not_before": now + timedelta(seconds=pause), "last_error": clean(error)}
    return _release(connection, desk, channel, me, failed)


def release(connection: Connection, desk: str, channel: str, me: str) -> None:
    """Releases a channel whose message was not settled."""
    _release(connection, desk, channel, me, {})


def due(connection: Connection, desk: str, channels: Iterable[str]) -> list[str]:
    """The channels that have a message waiting and may be tried now."""
    now, c, named = server_time(connection), notice_channels.c, list(channels)
    waiting = select(notices.c.channel).where(
        notices.c.desk == clean(desk), notices.c.sent_at.is_(None), notices.c.channel.in_(named)
    )
    found = set(connection.scalars(waiting.distinct()))
    busy = select(c.channel).where(c.desk == clean(desk), or_(*_busy(now)))
    return [channel for channel in named if channel in found - set(connection.scalars(busy))]


def _is_channel(desk: str, channel: str) -> tuple[Any, Any]:
    return notice_channels.c.desk == clean(desk), notice_channels.c.channel == channel


def _busy(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Whether a channel is held, and whether it has to wait after a failure."""
    c = notice_channels.c
    return (
        and_(c.held_until > now, c.held_until <= now + FARTHEST_HELD),
        and_(c.not_before > now, c.not_before <= now + FARTHEST_PAUSE),
    )


def _hold(connection: Connection, desk: str, channel: str, me: str, now: datetime) -> int | None:
    """Takes the channel. Returns how many times in a row it has failed; None if it is busy."""
    c = notice_channels.c
    free = [or_(moment.is_(None), ~busy) for moment, busy in zip((c.held_until, c.not_before), _busy(now), strict=True)]
    held = {"held_by": me, "held_until": now + timedelta(seconds=HELD_SECONDS)}
    taken = update(notice_channels).where(*_is_channel(desk, channel), *free).values(held).returning(c.failures)
    failures: int | None = connection.scalar(taken)
    return failures


def _release(connection: Connection, desk: str, channel: str, me: str, changes: Mapping[str, Any]) -> bool:
    mine = update(notice_channels).where(*_is_channel(desk, channel), notice_channels.c.held_by == me)
    done = mine.values(held_by=None, held_until=None, **changes).returning(notice_channels.c.channel)
    return connection.scalar(done) is not None


def _next(connection: Connection, desk: str, channel: str, now: datetime, failures: int) -> Dispatch | None:
    """The next message: the oldest notice, or many of one kind gathered; after a failure, of another kind. None if every kind has
    to wait."""
    mine = (notices.c.desk == clean(desk), notices.c.channel == channel)
    # A newer release may have left kinds that this one cannot name.
    waiting = select(notices.c.kind).where(*mine, notices.c.sent_at.is_(None), notices.c.kind.in_(_KINDS))
    kinds = list(connection.scalars(waiting.group_by(notices.c.kind).order_by(func.min(notices.c.number))))
    turn = failures % len(kinds) if kinds else 0
    for kind in kinds[turn:] + kinds[:turn]:
        sent_at = notices.c.sent_at
        lately = (notices.c.kind == kind, sent_at > now - GATHERED_WITHIN, sent_at <= now + GATHERED_WITHIN)
        sent = connection.scalar(select(func.count(sent_at.distinct())).where(*mine, *lately)) or 0
        if sent >= MOST_SINGLE:
            continue
        rows = connection.execute(
            select(notices)
            .where(*mine, notices.c.kind == kind, notices.c.sent_at.is_(None))
            .order_by(notices.c.number)
            .limit(MOST_KEPT)
        ).all()
        return _dispatch(rows, gathered=len(rows) > MOST_SINGLE - sent)
    return None


def _dispatch(rows: Sequence[Row[Any]], *, gathered: bool) -> Dispatch:
    covered = rows if gathered else rows[:1]
    shown = [
        Notice(event_id=row.event_id, kind=NoticeKind(row.kind), at=row.at, text=row.text)
        for row in covered[:MOST_SINGLE]
    ]
    return Dispatch(shown, [row.number for row in covered])
