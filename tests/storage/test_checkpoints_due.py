"""Checkpoints that the worker makes: one a day and after each kill and restart, one whoever makes it, and told elsewhere."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, text

from activities.auditing import Auditor
from domain import notices as domain_notices
from storage.audit import checkpoints
from storage.clock import server_time
from storage.database import Database
from storage.desks import ClearedKill, clear_latch, write_desk
from tests.storage.builders import NOW, make_decision, make_desk_row

CHANNELS = {"info-json-1": False, "critical-json-2": True}


@pytest.fixture
def own(new_database_url: Callable[[], str]) -> Iterator[Database]:
    database = Database(new_database_url(), timeout_seconds=60, application_name="ais-test")
    yield database
    database.close()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    checkpoints.make_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def auditor(database: Database, key: Path) -> Auditor:
    return Auditor("main", str(key), CHANNELS, database)


async def kept(database: Database) -> list[str]:
    return await database.run(lambda c: list(c.scalars(text("SELECT text FROM audit_checkpoints ORDER BY at"))))


def kill(connection: Connection) -> None:
    write_desk(connection, make_desk_row("main", killed=True, number=1))


def restart(connection: Connection) -> None:
    assert clear_latch(connection, "main", ClearedKill(1, "main-1"), make_decision(desk="main"))


async def test_one_a_day_and_one_after_each_kill_and_restart(own: Database, key: Path) -> None:
    made = auditor(own, key)
    counts = []
    for change in (None, kill, None, restart, None):
        if change:
            await own.run(change)
        await made.round()
        await auditor(own, key).round()
        counts.append(len(await kept(own)))
    assert counts == [1, 2, 2, 3, 3]
    await own.run(lambda c: c.execute(text("DELETE FROM audit_checkpoints")))
    await auditor(own, key).round()
    old = json.loads((await kept(own))[0])["checkpoint"]
    assert old["chains"]["main"]["seq"] == old["chains"]["main"]["count"]


async def test_a_checkpoint_is_due_when_the_database_came_back_older(own: Database, key: Path) -> None:
    await own.run(kill)
    await own.run(restart)
    made = auditor(own, key)
    await made.round()
    older = "DELETE FROM audit WHERE seq > 1; UPDATE audit_heads SET seq = 1"
    await own.run(lambda c: [c.execute(text(statement)) for statement in older.split(";")])
    for _ in range(2):
        await made.round()
        await auditor(own, key).round()
    newest = checkpoints.read((await kept(own))[-1], public(key))
    assert (len(await kept(own)), newest.chains["main"].seq) == (2, 1)


async def test_several_workers_make_one_checkpoint(own: Database, key: Path) -> None:
    await asyncio.gather(*(auditor(own, key).round() for _ in range(6)))
    assert len(await kept(own)) == 1


async def test_a_copy_goes_to_the_channels_whole_and_is_believed(own: Database, key: Path) -> None:
    await own.run(kill)
    await auditor(own, key).round()
    rows = await own.run(lambda c: c.execute(text("SELECT channel, kind, text FROM notices")).all())
    assert [(row.channel, row.kind) for row in rows] == [("info-json-1", "checkpoint")]
    (document,) = await kept(own)
    told = domain_notices.checkpoint(checkpoints.read(document, public(key)).at, rows[0].text)
    body = domain_notices.message("main", [told], 1).body
    assert checkpoints.read(body[body.index("{") :], public(key)).chains["main"].seq == 1


def test_a_checkpoint_that_is_too_long_for_a_message_is_not_cut_and_says_where_the_whole_one_is() -> None:
    told = domain_notices.checkpoint(NOW, "{" + "x" * domain_notices.MAX_CHECKPOINT_CHARS)
    body = domain_notices.message("main", [told], 1).body
    assert ("audit_checkpoints" in body, "{" in body) == (True, False)


def public(key: Path) -> str:
    return checkpoints.public_key_of(checkpoints.read_key(key))


async def test_a_forged_newest_checkpoint_does_not_end_the_making(own: Database, key: Path) -> None:
    forged = text("INSERT INTO audit_checkpoints VALUES ('2999-01-01', :key, '{}')")
    await own.run(lambda c: c.execute(forged, {"key": public(key)}))
    made = auditor(own, key)
    await made.round()
    await own.run(lambda c: c.execute(text("DELETE FROM audit_checkpoints WHERE at < '2999-01-01'")))
    await made.round()
    # The forgery, and a true one in the place of that which was taken away; a process that has made none believes the same.
    assert len(await kept(own)) == 1
    await own.run(kill)
    await made.round()
    assert len(await kept(own)) == 2


@pytest.mark.parametrize("forged", ["[" * 100_000, '{"checkpoint": 1}'])
async def test_no_row_of_the_table_ends_the_making(own: Database, key: Path, forged: str) -> None:
    put = text("INSERT INTO audit_checkpoints VALUES (now() - interval '1 second', :key, :text)")
    await own.run(lambda c: c.execute(put, {"key": public(key), "text": forged}))
    await auditor(own, key).round()
    assert len(await kept(own)) == 2


async def test_one_is_due_on_the_next_day_and_one_from_the_future_counts_for_nothing(
    own: Database, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = auditor(own, key)
    await made.round()
    monkeypatch.setattr("storage.audit.checkpoints.server_time", lambda c: server_time(c) + timedelta(days=1))
    await made.round()
    await made.round()
    assert len(await kept(own)) == 2
    # The clock is right again: the one of tomorrow is no reason to make one in each round.
    monkeypatch.undo()
    for _ in range(3):
        await made.round()
        await auditor(own, key).round()
    assert len(await kept(own)) == 2


async def test_what_waits_is_chained_though_its_desk_writes_nothing_more(own: Database) -> None:
    wait = "INSERT INTO audit_waiting (desk, at, kind, subject, body, why) VALUES ('-', now(), 'key_revoked', 'k', '{}', 'x')"
    await own.run(lambda c: c.execute(text(wait)))
    await Auditor("main", None, CHANNELS, own).round()
    rows = await own.run(lambda c: c.execute(text("SELECT desk, kind FROM audit")).all())
    left = await own.run(lambda c: c.scalar(text("SELECT count(*) FROM audit_waiting")))
    assert ([tuple(row) for row in rows], left) == ([("-", "key_revoked")], 0)


async def test_a_missing_key_is_one_line_in_the_log_and_no_end(own: Database, tmp_path: Path) -> None:
    lost = auditor(own, tmp_path / "none")
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            await lost._guarded_round()
    (line,) = lines
    assert (line["log_level"], "none holds no usable key" in line["why"]) == ("error", True)


async def test_a_file_that_hangs_holds_up_neither_the_loop_nor_the_end(
    own: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    opened = threading.Event()
    real = checkpoints.read_key

    def reading(path: Path) -> Ed25519PrivateKey:
        opened.set()
        return real(path)

    monkeypatch.setattr(checkpoints, "read_key", reading)
    running = asyncio.create_task(auditor(own, tmp_path / "fifo").run())
    while not opened.is_set():
        await asyncio.sleep(0.01)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=1)
    # Lets the thread go.
    os.close(os.open(tmp_path / "fifo", os.O_WRONLY))
    assert done
