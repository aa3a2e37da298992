"""The notifier with real targets: each event once for each channel, whatever hangs, fails or dies."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from sqlalchemy import func, select, update

from domain import notices as domain_notices
from domain.desk.status import Status
from notify import notifier as notifier_module
from notify.channels import Channel
from notify.delivery import Delivery, not_understood
from notify.notifier import Notifier, StatusSource
from storage import notice_queue, notices
from storage.database import Database, DatabaseUnavailable
from storage.decisions import insert_decisions
from storage.tables import notice_channels
from storage.tables import notices as table
from tests.notify.targets import PASSWORD, HttpTarget
from tests.postgres import Server
from tests.storage.test_notices import make_command, make_killed


async def looked(notifier: Notifier) -> None:
    """A busy machine may leave the process idle within its transaction for more than its second: PostgreSQL ends that."""
    for _ in range(20):
        with suppress(DatabaseUnavailable):
            return await notifier.look()
    pytest.fail("PostgreSQL ended every transaction")


class Running:
    """Notifiers on one desk, and the desk's log."""

    def __init__(self, database: Database, url: str, desk: str) -> None:
        self.desk = desk
        self._database = database
        self._url = url

    def make(self, *channels: Channel, ask: StatusSource | None = None) -> Notifier:
        own = Database(self._url, threads=2, timeout_seconds=1, application_name="ais-notify")
        return Notifier(self.desk, channels, own, ask or _nobody, 5.0)

    @asynccontextmanager
    async def run(self, *channels: Channel, count: int = 1) -> AsyncIterator[None]:
        notifiers = [self.make(*channels) for _ in range(count)]
        await looked(notifiers[0])
        tasks = [asyncio.create_task(notifier.run()) for notifier in notifiers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            began = time.monotonic()
            await asyncio.wait(tasks)
            assert time.monotonic() - began < 3, "a notifier must not hold up the end of its process"

    async def happen(self, *events: str, command: str = "kill") -> None:
        rows = [make_command(self.desk, command, summary=event) for event in events]
        await self._database.run(lambda connection: insert_decisions(connection, rows))

    async def execute(self, statement: Any) -> None:
        await self._database.run(lambda connection: connection.execute(statement))


async def _nobody() -> Status | None:
    return None


async def all_understood(channels: Sequence[Channel]) -> list[int]:
    return []


@pytest.fixture
def running(database: Database, database_url: str, desk: str, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(notifier_module, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(notifier_module, "SEND_SECONDS", 0.1)
    monkeypatch.setattr(notifier_module, "SETTLE_SECONDS", 0.1)
    # A process of its own, which only the test of a wrong URL is about.
    monkeypatch.setattr(notifier_module, "not_understood", all_understood)
    return Running(database, database_url, desk)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.02)


def _told(target: HttpTarget) -> list[str]:
    return [line.partition("  ")[2] for message in target.got for line in message["message"].splitlines()]


async def test_two_processes_tell_each_event_once_and_in_order(
    running: Running, target: HttpTarget, other: HttpTarget
) -> None:
    async with running.run(target.channel(), other.channel("critical"), count=2):
        await running.happen("one", "two")
        await running.happen("paused", command="pause")
        await until(lambda: len(target.got) == 3 and len(other.got) == 2)
    assert _told(target) == ["one", "two", "paused"]
    assert _told(other) == ["one", "two"]


async def test_a_target_that_hangs_holds_up_no_other_and_no_end(
    running: Running, target: HttpTarget, other: HttpTarget
) -> None:
    other.how = "hang"
    async with running.run(target.channel(), other.channel()):
        await running.happen("one", "two")
        await until(lambda: len(target.got) == 2 and other.asked == 1)


async def test_a_target_that_comes_back_is_told_what_it_missed_and_the_log_has_no_password(
    running: Running, target: HttpTarget, caplog: pytest.LogCaptureFixture
) -> None:
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    caplog.set_level(logging.DEBUG)
    target.how = 500
    async with running.run(target.channel()):
        await running.happen("one")
        await until(lambda: "was not accepted" in caplog.text)
        target.how = 200
        await running.execute(update(notice_channels).values(not_before=func.now()))
        await until(lambda: "accepted again" in caplog.text)
    assert _told(target) == ["one"]
    assert "the target answered 500" in caplog.text
    assert PASSWORD not in caplog.text
    assert target.url not in caplog.text


async def test_what_a_process_was_sending_when_it_was_stopped_is_sent_by_another_at_once(
    running: Running, target: HttpTarget
) -> None:
    target.how = "hang"
    async with running.run(target.channel()):
        await running.happen("one")
        await until(lambda: target.asked)
    target.how = 200
    async with running.run(target.channel()):
        async with asyncio.timeout(notice_queue.HELD_SECONDS / 3):
            await until(lambda: target.got)
    assert _told(target) == ["one"]


async def test_what_was_just_sent_when_its_process_is_stopped_is_not_sent_again(
    running: Running, target: HttpTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, really = asyncio.Event(), Notifier._settle

    async def settle(self: Notifier, *of: Any) -> None:
        begun.set()
        await asyncio.sleep(0.2)
        await really(self, *of)

    monkeypatch.setattr(Notifier, "_settle", settle)
    async with running.run(target.channel()):
        await running.happen("one")
        await begun.wait()
    async with running.run(target.channel()):
        await running.happen("two")
        await until(lambda: len(target.got) == 2)
    assert _told(target) == ["one", "two"]


async def test_a_few_are_sent_at_a_time_and_a_critical_channel_does_not_wait_for_others(
    running: Running, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending, over = list[str](), asyncio.Event()

    async def sends(channel: Channel, *_: Any) -> Delivery:
        sending.append(channel.name)
        await over.wait()
        return Delivery(None)

    monkeypatch.setattr(notifier_module, "deliver", sends)
    channels = [Channel(f"info-{number}", False, "x") for number in range(6)]
    notifier = running.make(*channels, *(Channel(f"critical-{number}", True, "x") for number in range(2)))
    await notifier.look()
    await running.happen("paused", command="pause")
    await notifier.look()
    await notifier.send()
    await until(lambda: len(sending) == 2)
    await running.happen("killed")
    await notifier.look()
    for _ in range(2):
        await notifier.send()
    await until(lambda: len(sending) == 3)
    assert set(sending) == {"info-0", "info-1", "critical-0"}
    over.set()
    await notifier.settled()
    await notifier.send()
    await until(lambda: len(sending) == 6)
    assert "critical-1" in sending[3:]
    await notifier.settled()
    notifier._database.close()


async def test_a_database_that_was_away_makes_no_coordinator_silent(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[bool]()

    def look(_: Any, watched: notices.Watched, __: Any) -> int:
        told.append(watched.may_tell_silence)
        if len(told) == 2:
            raise DatabaseUnavailable("away")
        return 0

    monkeypatch.setattr(notices, "note_events", look)
    notifier = running.make()
    notifier._started -= 60
    await notifier.look()
    with pytest.raises(DatabaseUnavailable):
        await notifier.look()
    await notifier.look()
    assert told == [True, True, False]
    notifier._database.close()


async def test_a_kill_that_is_not_over_is_told_though_the_clock_of_temporal_is_ahead(
    running: Running, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain_notices, "OPEN_TOO_LONG", timedelta(seconds=0.5))
    status = make_killed(at=datetime.now(UTC) + timedelta(hours=1))

    async def ask() -> Status:
        return status

    notifier = running.make(Channel("critical-json-1", True, "json://nowhere"), ask=ask)
    mine, found = select(table.c.kind).where(table.c.desk == running.desk), list[str]()
    async with asyncio.timeout(180):
        while not found:
            await notifier.look()
            found += await database.run(lambda connection: connection.scalars(mine).all())
    assert found == ["kill_not_over"]
    notifier._database.close()


async def test_nothing_that_waited_through_a_long_pause_is_sent_before_the_first_look_ends_it(
    running: Running, target: HttpTarget
) -> None:
    before = running.make(target.channel())
    await before.look()
    await running.happen("old")
    await before.look()
    before._database.close()
    await running.execute(update(notice_channels).values(looked_at=func.now() - timedelta(hours=2)))
    notifier = running.make(target.channel())
    await notifier.send()
    assert not notifier._sending
    await notifier.look()
    await notifier.send()
    assert not notifier._sending
    notifier._database.close()


async def test_for_how_long_it_watches_is_its_age_however_long_the_database_was_away(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = list[timedelta]()

    def look(_: Any, watched: notices.Watched, __: Any) -> int:
        watching.append(watched.watching)
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(notices, "note_events", look)
    notifier = running.make()
    notifier._born -= 7_200
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await notifier.look()
    assert all(timedelta(hours=2) <= each < timedelta(hours=2, minutes=1) for each in watching)
    notifier._database.close()


async def test_a_database_that_hangs_ends_nothing_and_what_was_sent_is_not_sent_again(
    running: Running, target: HttpTarget, postgres: Server
) -> None:
    async with running.run(target.channel()):
        target.how = "hang"
        await running.happen("one")
        await until(lambda: target.asked)
        with postgres.hung():
            target.over.set()
            await until(lambda: target.got)
            # Longer than a call to the database may take.
            await asyncio.sleep(1.2)
        await running.happen("two")
        await until(lambda: len(target.got) == 2)
    assert _told(target) == ["one", "two"]


async def test_a_database_that_is_killed_while_something_is_sent_ends_nothing_and_each_event_is_reported_once(
    running: Running, target: HttpTarget, postgres: Server
) -> None:
    async with running.run(target.channel()):
        target.how = "hang"
        await running.happen("one")
        await until(lambda: target.asked)
        await asyncio.to_thread(postgres.kill)
        try:
            target.over.set()
            await until(lambda: target.got)
        finally:
            await asyncio.to_thread(postgres.start_again)
        await running.happen("two")
        await until(lambda: len(target.got) == 2)
    assert _told(target) == ["one", "two"]


async def test_a_wrong_url_is_named_without_its_words_and_the_others_are_reported(
    running: Running, target: HttpTarget, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier_module, "not_understood", not_understood)
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    wrong = Channel("info-nonsense-1", False, f"nonsense://{PASSWORD}")
    async with running.run(target.channel(), wrong):
        await running.happen("one")
        await until(lambda: target.got and "2 (info-nonsense-1)" in caplog.text)
    assert PASSWORD not in caplog.text
