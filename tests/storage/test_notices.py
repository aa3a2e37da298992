"""Notices: each event once for each channel, in order, however many look and send, and whatever is left in between."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, delete, func, insert, select, text, update

from domain.desk.carried import Carried, KillRecord
from domain.desk.commands import Source
from domain.desk.states import Mode, State
from domain.desk.status import Status, status_of
from domain.notices import Notice, NoticeKind, message, of_status, open_events
from domain.risk.limits import Limits
from domain.trading.decisions import Decision, DecisionType
from storage import notice_queue, notices
from storage.database import Database
from storage.decisions import insert_decisions
from storage.equity import EquityPoint, write_point
from storage.notice_queue import Dispatch
from storage.notices import Watched
from storage.tables import notice_channels, notice_desks
from storage.tables import notices as table
from tests.storage.builders import make_decision

ALL, URGENT = "info-json-1", "critical-json-2"
CHANNELS = {ALL: False, URGENT: True}


def make_status(desk: str, **changes: Any) -> Status:
    facts: dict[str, Any] = {
        "desk": desk, "mode": Mode.PAPER, "symbols": ["BTCUSDT"], "cycle_seconds": 5.0, "limits": Limits(),
        "search_attributes": True,
        "started_at": datetime(2020, 1, 1, tzinfo=UTC), "since": datetime(2020, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return status_of(Carried(**facts | changes), "run")


def make_command(desk: str, command: str = "kill", **changes: Any) -> Decision:
    summary = changes.pop("summary", f"{command} applied by anna: flash crash")
    facts = {"decision_type": DecisionType.CONTROL, "command": command, "result": "applied", "desk": desk}
    return make_decision(**facts | {"summary": summary} | changes)


class Ledger:
    """One desk's notices, as worker and API use them."""

    def __init__(self, database: Database, desk: str) -> None:
        self.database = database
        self.desk = desk

    async def look(self, status: Status | None = None, *, may_tell_silence: bool = True) -> int:
        watched = Watched(self.desk, CHANNELS, may_tell_silence)
        return await self.database.run(lambda connection: notices.note_events(connection, watched, status))

    async def summarise(self) -> int:
        watched = Watched(self.desk, CHANNELS, may_tell_silence=False)
        return await self.database.run(lambda connection: notices.summarise(connection, watched))

    async def write(self, *rows: Decision) -> None:
        await self.database.run(lambda connection: insert_decisions(connection, rows))

    async def take(self, channel: str = ALL, me: str = "me") -> Dispatch | None:
        return await self.database.run(lambda connection: notice_queue.take(connection, self.desk, channel, me))

    async def settle(self, dispatch: Dispatch, channel: str = ALL, me: str = "me", error: str | None = None) -> bool:
        numbers = dispatch.numbers
        return await self.database.run(
            lambda connection: notice_queue.settle(connection, self.desk, channel, me, numbers, error)
        )

    async def told(self, channel: str = ALL) -> list[str]:
        """The events of every message, one after the other, until there is none."""
        events = []
        while dispatch := await self.take(channel):
            events += [
                f"{len(dispatch.numbers)}x {dispatch.shown[0].kind}"
                if len(dispatch.numbers) > 1
                else dispatch.shown[0].text
            ]
            await self.settle(dispatch, channel)
        return events

    async def execute(self, statement: Any) -> None:
        await self.database.run(lambda connection: connection.execute(statement))

    async def troubles(self) -> list[tuple[str, int, str | None]]:
        """As docs/notifications.md asks for them."""
        c = notice_channels.c
        failing = select(c.channel, c.failures, c.last_error).where(c.desk == self.desk, c.failures > 0)
        return [tuple(row) for row in await self.database.run(lambda connection: connection.execute(failing).all())]

    async def due(self, *channels: str) -> list[str]:
        return await self.database.run(lambda connection: notice_queue.due(connection, self.desk, channels))


@pytest.fixture
def ledger(database: Database, desk: str) -> Ledger:
    return Ledger(database, desk)


async def test_what_was_before_the_first_look_is_not_reported_and_what_comes_then_is(ledger: Ledger) -> None:
    await ledger.write(make_command(ledger.desk, summary="old"))
    await ledger.look(make_status(ledger.desk))
    assert await ledger.told() == []
    await ledger.write(
        make_command(ledger.desk, summary="killed"),
        make_command(ledger.desk, "pause", summary="paused"),
        make_command(ledger.desk, "resume", summary="refused", result="refused"),
        make_decision(desk=ledger.desk, summary="a cycle"),
        make_decision(desk=ledger.desk, summary="reduced", decision_type=DecisionType.RISK_ACTION, source="soft"),
        make_decision(desk=ledger.desk, summary="warned", decision_type=DecisionType.RISK_ACTION, source="warning"),
        make_command("another", summary="of another desk"),
    )
    await ledger.look()
    assert await ledger.told() == ["killed", "paused", "reduced"]
    assert await ledger.told(URGENT) == ["killed", "reduced"]


async def test_a_new_channel_is_told_only_what_comes_from_then_on(ledger: Ledger) -> None:
    await ledger.look()
    await ledger.write(make_command(ledger.desk, summary="before"))
    await ledger.look()
    CHANNELS["info-json-3"] = False
    try:
        await ledger.look()
        await ledger.write(make_command(ledger.desk, summary="after"))
        await ledger.look()
    finally:
        del CHANNELS["info-json-3"]
    assert await ledger.told("info-json-3") == ["after"]
    assert await ledger.told() == ["before", "after"]


async def test_a_channel_that_nobody_looked_for_begins_anew_unless_only_the_database_was_away(ledger: Ledger) -> None:
    await ledger.look()
    for watching, told in ((timedelta(0), ["late", "new"]), (timedelta(hours=3), ["old", "late", "new"])):
        await _pause_between(ledger)
        watched = Watched(ledger.desk, CHANNELS, False, watching)
        await ledger.database.run(partial(notices.note_events, watched=watched, status=None))
        await ledger.write(make_command(ledger.desk, summary="new"))
        await ledger.look()
        assert await ledger.told() == told


async def test_a_row_of_the_last_hour_is_reported_after_a_pause_even_if_an_older_one_was_written_after_it(
    ledger: Ledger,
) -> None:
    await ledger.look()
    await _pause_between(ledger)
    await ledger.write(make_command(ledger.desk, summary="of another time"))
    await ledger.look()
    assert await ledger.told() == ["late", "of another time"]


async def test_what_waited_for_a_channel_through_a_long_pause_is_not_sent_unless_it_is_of_the_last_hour(
    ledger: Ledger,
) -> None:
    await ledger.look()
    recent = datetime.now(UTC) - timedelta(minutes=50)
    await ledger.write(make_command(ledger.desk, summary="old"))
    await ledger.write(make_command(ledger.desk, summary="late", timestamp=recent))
    await ledger.look()
    urgent = (notice_channels.c.desk == ledger.desk, notice_channels.c.channel == URGENT)
    await ledger.execute(update(notice_channels).where(*urgent).values(looked_at=func.now() - timedelta(hours=2)))
    for _ in range(2):
        await ledger.look()
    assert await ledger.told(URGENT) == ["late"]
    assert await ledger.told() == ["old", "late"]


async def _pause_between(ledger: Ledger) -> None:
    """Nobody looks for two hours: one kill at the beginning, one in the last hour."""
    await ledger.write(make_command(ledger.desk, summary="old"))
    recent = datetime.now(UTC) - timedelta(minutes=50)
    await ledger.write(make_command(ledger.desk, summary="late", timestamp=recent))
    await ledger.execute(update(notice_channels).values(looked_at=func.now() - timedelta(hours=2)))


async def test_without_the_index_a_channel_that_nobody_looked_for_begins_anew_once_it_is_there(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.look()
    await _pause_between(ledger)
    with monkeypatch.context() as without:
        without.setattr(notices, "_INDEXED", notices._INDEXED.replace("_as_written", "_of_nobody"))
        for _ in range(2):
            await ledger.look()
    await ledger.look()
    assert await ledger.told() == ["late"]


async def test_without_its_index_the_log_is_not_read_and_is_reported_once_it_is_there(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.look()
    await ledger.write(make_command(ledger.desk, summary="killed"))
    with monkeypatch.context() as without:
        without.setattr(notices, "_INDEXED", notices._INDEXED.replace("_as_written", "_of_nobody"))
        assert await ledger.look() == 0
    await ledger.look()
    assert await ledger.told() == ["killed"]


async def test_a_first_look_without_the_index_does_not_touch_the_log_and_tells_what_comes_from_then_on(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.write(make_command(ledger.desk, summary="old"))
    engine = create_engine(database_url, poolclass=NullPool)
    with monkeypatch.context() as without, engine.connect() as other:
        without.setattr(notices, "_INDEXED", notices._INDEXED.replace("_as_written", "_of_nobody"))
        # A look that reads the log would wait for this lock until its time is over.
        other.execute(text("LOCK TABLE decisions IN ACCESS EXCLUSIVE MODE"))
        for _ in range(2):
            assert await ledger.look() == 0
        other.rollback()
        await ledger.write(make_command(ledger.desk, summary="new"))
    await ledger.look()
    assert await ledger.told() == ["new"]


async def test_every_applied_command_of_a_person_has_its_kind(ledger: Ledger) -> None:
    await ledger.look()
    await ledger.write(
        *(make_command(ledger.desk, kind) for kind in ("restart", "pause", "resume", "set_limits", "propose"))
    )
    await ledger.look()
    kinds = [dispatch.shown[0].kind for dispatch in [await _done(ledger) for _ in range(4)]]
    assert kinds == [NoticeKind.RESTART, NoticeKind.PAUSE, NoticeKind.RESUME, NoticeKind.LIMITS]
    assert await ledger.take() is None


async def _done(ledger: Ledger) -> Dispatch:
    dispatch = await ledger.take()
    assert dispatch
    await ledger.settle(dispatch)
    return dispatch


async def test_two_who_look_at_the_same_time_note_an_event_once(ledger: Ledger) -> None:
    await ledger.look()
    await ledger.write(*(make_command(ledger.desk, summary=str(number)) for number in range(3)))
    counts = await asyncio.gather(*(ledger.look() for _ in range(4)))
    assert sorted(counts) == [0, 0, 0, 6]
    assert await ledger.told() == ["0", "1", "2"]


async def test_a_row_that_is_committed_after_later_ones_is_still_reported(ledger: Ledger) -> None:
    await ledger.look()
    numbers = [await ledger.database.run(lambda c: c.scalar(text("SELECT nextval('decisions_written')"))) for _ in "12"]
    for number, summary in ((numbers[1], "second"), (numbers[0], "first, and late")):
        row = make_command(ledger.desk, summary=summary)
        await ledger.write(row)
        await ledger.execute(text(f"UPDATE decisions SET written = {number} WHERE decision_id = '{row.decision_id}'"))
        await ledger.look()
    assert await ledger.told() == ["second", "first, and late"]


async def test_one_process_sends_at_a_time_and_another_takes_over_from_one_that_died(ledger: Ledger) -> None:
    await _kill(ledger)
    first = await ledger.take(me="first")
    assert first
    assert await ledger.take(me="second") is None
    assert await ledger.due(ALL, URGENT) == [URGENT]
    await ledger.execute(update(notice_channels).values(held_until=func.now()))
    second = await ledger.take(me="second")
    assert second
    assert second.numbers == first.numbers
    # The first one wakes up: what it sent is noted, and the channel stays the other's.
    assert not await ledger.settle(first, me="first")
    assert await ledger.settle(second, me="second")
    assert await ledger.take() is None


async def test_a_channel_that_fails_is_tried_later_and_later_and_holds_up_no_other(ledger: Ledger) -> None:
    await _kill(ledger)
    for failures in (1, 2, 3):
        dispatch = await ledger.take()
        assert dispatch
        await ledger.settle(dispatch, error="the target answered 500")
        assert await ledger.take() is None
        assert await ledger.troubles() == [(ALL, failures, "the target answered 500")]
        pause = await ledger.database.run(_pause)
        assert 5 * 2 ** (failures - 1) - 2 < pause <= 5 * 2 ** (failures - 1)
        await ledger.execute(update(notice_channels).values(not_before=func.now()))
    assert await ledger.told(URGENT) == ["killed"]
    assert await ledger.told() == ["killed"]
    assert await ledger.troubles() == []


async def test_a_message_that_a_target_never_takes_holds_up_no_other_kind(ledger: Ledger) -> None:
    """Found to be false: for a checkpoint that was too long for a chat, its channel heard of no kill any more."""
    await ledger.look()
    await ledger.write(make_command(ledger.desk, "pause", summary="too long"), make_command(ledger.desk, summary="one"))
    await ledger.look()
    told = []
    for _ in range(5):
        dispatch = await ledger.take()
        assert dispatch
        told.append(dispatch.shown[0].text)
        await ledger.settle(dispatch, error="the target answered 400" if told[-1] == "too long" else None)
        await ledger.execute(update(notice_channels).values(not_before=None))
        if told[-1] == "one":
            await ledger.write(make_command(ledger.desk, summary="two"))
            await ledger.look()
    assert told == ["too long", "one", "too long", "two", "too long"]


async def test_a_kind_that_a_newer_release_has_left_holds_up_no_kill(ledger: Ledger) -> None:
    await ledger.look()
    strange = {"desk": ledger.desk, "event_id": "x", "channel": ALL, "kind": "of_tomorrow", "text": "?"}
    await ledger.execute(insert(table).values(strange | {"at": func.now()}))
    await ledger.write(make_command(ledger.desk, summary="killed"))
    await ledger.look()
    assert await ledger.told() == ["killed"]


def _pause(connection: Connection) -> float:
    left = func.extract("epoch", notice_channels.c.not_before - func.now())
    return float(connection.scalar(select(func.max(left))) or 0)


async def _kill(ledger: Ledger) -> None:
    await ledger.execute(delete(notice_channels))
    await ledger.look()
    await ledger.write(make_command(ledger.desk, summary="killed"))
    await ledger.look()


async def test_a_flood_is_gathered_and_holds_up_nothing_else(ledger: Ledger) -> None:
    await ledger.look()
    await ledger.write(*(make_command(ledger.desk, "pause", summary=f"pause {number}") for number in range(42)))
    await ledger.write(make_command(ledger.desk, summary="killed"))
    await ledger.look()
    dispatch = await ledger.take()
    assert dispatch
    body = message(ledger.desk, dispatch.shown, len(dispatch.numbers)).body
    assert (len(dispatch.shown), body.splitlines()[-1]) == (5, "37 more of this kind")
    await ledger.settle(dispatch)
    assert await ledger.told() == ["killed"]


async def test_a_flood_that_comes_one_by_one_is_five_messages_a_minute(ledger: Ledger) -> None:
    await ledger.look()
    told: list[str] = []
    for number in range(8):
        await ledger.write(make_command(ledger.desk, "pause", summary=str(number)))
        await ledger.look()
        told += await ledger.told()
    assert told == ["0", "1", "2", "3", "4"]
    await ledger.write(make_command(ledger.desk, summary="killed"))
    await ledger.look()
    assert await ledger.told() == ["killed"]
    await ledger.execute(update(table).values(sent_at=table.c.sent_at - timedelta(seconds=61)))
    assert await ledger.told() == ["5", "6", "7"]


async def test_a_silence_is_reported_once_by_whoever_sees_it_and_so_is_its_end(ledger: Ledger) -> None:
    status = make_status(ledger.desk)
    await ledger.look(status)
    await ledger.look(status)
    assert await ledger.told() == []
    await ledger.execute(update(notice_desks).values(cycle_seen_at=func.now() - timedelta(seconds=16)))
    assert await ledger.look(may_tell_silence=False) == 0
    assert sorted(await asyncio.gather(ledger.look(), ledger.look(status))) == [0, 2]
    (silence,) = await ledger.told(URGENT)
    assert silence.startswith("The coordinator's last cycle was at 2020-01-01")
    assert await ledger.look(status) == 0
    back = make_status(ledger.desk, last_cycle_at=datetime.now(UTC))
    await ledger.look(back)
    assert await ledger.look(back) == 0
    assert len(await ledger.told(URGENT)) == 1


async def test_a_clock_that_was_ahead_holds_back_no_notice(ledger: Ledger) -> None:
    """Found to be false: until the day that it said, no channel was free, and a kill that nobody heard of was one of many."""
    tomorrow, mine = func.now() + timedelta(days=1), notice_channels.c.desk == ledger.desk
    await ledger.look(make_status(ledger.desk))
    for number in range(6):
        await ledger.write(make_command(ledger.desk, summary=str(number)))
        await ledger.look()
        held = {"held_by": "another", "held_until": tomorrow, "not_before": tomorrow}
        await ledger.execute(update(notice_channels).where(mine).values(held))
        assert await ledger.due(ALL, URGENT) == [ALL, URGENT]
        assert (await ledger.told(URGENT), await ledger.told()) == ([str(number)], [str(number)])
        await ledger.execute(update(table).where(table.c.desk == ledger.desk).values(sent_at=tomorrow))
    # Nor does it hide a silence, or leave a day without its summary.
    ahead = {"cycle_seen_at": tomorrow, "summarised": datetime.now(UTC).date() + timedelta(days=30)}
    await ledger.execute(update(notice_desks).where(notice_desks.c.desk == ledger.desk).values(ahead))
    await ledger.look()
    seen = select(notice_desks.c.cycle_seen_at <= func.clock_timestamp()).where(notice_desks.c.desk == ledger.desk)
    assert await ledger.database.run(lambda connection: connection.scalar(seen))
    assert (await ledger.summarise(), await ledger.summarise()) == (1, 0)
    # Nor is a long pause overlooked, and old kills told as new.
    await ledger.execute(update(notice_channels).where(mine).values(looked_at=tomorrow))
    await ledger.look()
    ahead_still = select(func.count()).where(mine, notice_channels.c.looked_at > func.clock_timestamp())
    assert await ledger.database.run(lambda connection: connection.scalar(ahead_still)) == 0


async def test_a_late_answer_ends_no_silence_and_another_run_does_whatever_its_clock_says(ledger: Ledger) -> None:
    newest = make_status(ledger.desk, last_cycle_at=datetime(2020, 1, 2, tzinfo=UTC))
    for _ in range(2):
        await ledger.look(newest)
    await ledger.execute(update(notice_desks).values(cycle_seen_at=func.now() - timedelta(seconds=16)))
    late = make_status(ledger.desk, last_cycle_at=datetime(2020, 1, 1, 23, tzinfo=UTC))
    await ledger.look(late)
    assert [text.partition(" was at ")[0] for text in await ledger.told(URGENT)] == ["The coordinator's last cycle"]
    assert await ledger.look(late) == 0
    await ledger.look(make_status(ledger.desk, started_at=datetime(2019, 1, 1, tzinfo=UTC)))
    assert [text.partition(".")[0] for text in await ledger.told(URGENT)] == ["The coordinator runs cycles again"]


async def test_a_coordinator_that_starts_later_is_reported_and_its_first_one_only_if_it_starts_now(
    ledger: Ledger,
) -> None:
    await ledger.look()
    await ledger.look(make_status(ledger.desk))
    assert await ledger.told() == []
    for _ in range(2):
        await ledger.look(make_status(ledger.desk, started_at=datetime.now(UTC) - timedelta(seconds=20)))
        await ledger.execute(update(notice_desks).values(begun_at=func.now()))
    assert await ledger.told() == ["The coordinator runs in paper mode, every 5 s: BTCUSDT"]
    assert await ledger.told(URGENT) == []


async def test_a_day_is_summed_up_once_when_it_is_over(ledger: Ledger) -> None:
    await ledger.look()
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    yesterday = (midnight - timedelta(days=1)).date()
    await ledger.execute(update(notice_desks).values(summarised=yesterday - timedelta(days=1)))
    await ledger.write(
        *(_refused(ledger.desk, midnight - timedelta(hours=1), reason) for reason in ("a: 1", "a: 2", "b: 1"))
    )
    await ledger.write(_refused(ledger.desk, midnight - timedelta(days=2), "c: 1"))
    for hour, equity in ((20, 100), (10, 90), (2, 130)):
        point = _point(midnight - timedelta(hours=hour), equity)
        await ledger.database.run(partial(write_point, desk=ledger.desk, point=point))
    if datetime.now(UTC) - midnight < timedelta(minutes=2):
        pytest.skip("the day is not over yet for the summary")
    assert sorted(await asyncio.gather(*(ledger.summarise() for _ in range(3)))) == [0, 0, 1]
    money = "equity 130 (+30), deepest drawdown 10 %; 0 trades; orders refused: a 2, b 1"
    assert await ledger.told() == [f"{yesterday}: {money}"]


def _refused(desk: str, at: datetime, reason: str) -> Decision:
    return make_decision(desk=desk, timestamp=at, risk_passed=False, risk_reasons=[reason])


def _point(time: datetime, equity: int) -> EquityPoint:
    numbers = dict.fromkeys(("gross_exposure", "net_exposure", "leverage"), Decimal(0))
    money = {
        "equity": Decimal(equity),
        "balance": Decimal(equity),
        "drawdown": Decimal("0.1") if equity < 100 else Decimal(0),
    }
    return EquityPoint(time=time, prices={}, **money, **numbers)


async def test_a_desk_keeps_its_newest_notices_alone(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "MOST_KEPT", 20)
    monkeypatch.setattr(notices, "OVERLAP", 5)
    await ledger.look()
    for turn in range(5):
        await ledger.write(*(make_command(ledger.desk, summary=f"{turn}/{number}") for number in range(8)))
        await ledger.look()
    mine = select(func.count()).select_from(table).where(table.c.desk == ledger.desk)
    assert await ledger.database.run(lambda connection: connection.scalar(mine)) == 20
    await ledger.look()
    dispatch = await ledger.take()
    assert dispatch
    assert len(dispatch.numbers) == 8


KILLED_AT = datetime(2026, 3, 12, 14, 30, tzinfo=UTC)


def make_killed(**changes: Any) -> Status:
    facts = {
        "command_id": "k", "reason": "crash", "actor": "anna", "source": Source.OPERATOR, "at": KILLED_AT, "row_id": "row",
        "quiet_at": None, "flattens": False, "cancels": 2,
    }  # fmt: skip
    kill = KillRecord(**facts | changes)
    return make_status("main", state=State.KILLED, kill=kill, kill_number=3, last_kill_at=KILLED_AT)


@pytest.mark.parametrize(
    ("seconds", "changes", "kinds"),
    [
        (59, {}, []),
        (60, {}, ["kill_not_over"]),
        (60, {"quiet_at": KILLED_AT}, ["kill_not_over"]),
        (60, {"quiet_at": KILLED_AT, "verified_at": KILLED_AT}, []),
        (60, {"quiet_at": KILLED_AT, "verified_at": KILLED_AT, "flattens": True}, ["kill_not_over"]),
        (60, {"quiet_at": KILLED_AT, "verified_at": KILLED_AT, "flattens": True, "flat_at": KILLED_AT}, []),
    ],
)
def test_a_kill_that_is_not_over_after_a_minute_is_reported(
    seconds: float, changes: dict[str, Any], kinds: Sequence[str]
) -> None:
    found = of_status(make_killed(**changes), KILLED_AT + timedelta(seconds=seconds))
    assert [notice.kind for notice in found] == kinds


def test_a_clock_of_temporal_that_is_ahead_does_not_delay_what_is_not_over() -> None:
    """Found to be false: by as much as it was ahead, nobody heard that a kill did not end."""
    status, now = make_killed(), KILLED_AT - timedelta(hours=1)
    (event,) = open_events(status)
    for seconds, kinds in ((59, []), (60, [NoticeKind.KILL_NOT_OVER])):
        assert [each.kind for each in of_status(status, now, {event: timedelta(seconds=seconds)})] == kinds
    assert open_events(make_killed(quiet_at=KILLED_AT, verified_at=KILLED_AT)) == []


@pytest.mark.parametrize(("left", "says"), [(5, False), (6, True)])
def test_what_a_notice_leaves_out_of_a_kill_it_says(left: int, says: bool) -> None:
    """Whoever cancels by hand must not take five items for all."""
    status = make_killed()
    assert status.kill
    kill = status.kill.model_copy(update={"residue": [f"item {number}" for number in range(left)]})
    (notice,) = of_status(status.model_copy(update={"kill": kill}), KILLED_AT + timedelta(minutes=1))
    assert "item 4" in notice.text
    assert ("and more: `ais status`" in notice.text) is says


def test_the_words_of_others_make_one_line_each() -> None:
    notice = Notice(event_id="x", kind=NoticeKind.KILL, at=KILLED_AT, text="killed\nby \x1b[31mred\u202e" + "x" * 2_000)
    body = message("main", [notice], 1).body
    assert (len(body.splitlines()), "\x1b" in body, "\u202e" in body) == (1, False, False)
    assert len(body) < 600


def test_what_is_gathered_is_no_longer_than_what_chats_and_pagers_take() -> None:
    """Found to be false: Discord refuses more than 2,000 characters, every time, and nothing behind such a message was sent."""
    notices = [Notice(event_id="x", kind=NoticeKind.KILL, at=KILLED_AT, text="y" * 2_000)] * 5
    assert len(message("main", notices, 5_000).body) < 1_000
