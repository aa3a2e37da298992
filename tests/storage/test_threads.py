"""What a process does that has no room for another thread. Needs no server."""

import threading

import pytest
from sqlalchemy import Connection

from storage.database import Database, DatabaseUnavailable


async def test_what_was_refused_for_want_of_a_thread_is_not_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stayed in the queue: an order was reported as not placed, or a restart as refused, and the statement was sent
    once another call had a thread."""
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/none", application_name="ais-test")
    connected: list[str] = []

    def no_room(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def connect() -> Connection:
        connected.append("connected")
        raise DatabaseUnavailable("a test")

    monkeypatch.setattr(database._engine, "connect", connect)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_room)
        with pytest.raises(DatabaseUnavailable, match="can't start new thread"):
            await database.run(lambda _: None)
    with pytest.raises(DatabaseUnavailable, match="a test"):
        await database.run(lambda _: None)
    database.close()
    assert connected == ["connected"]
    with pytest.raises(DatabaseUnavailable, match="has been closed"):
        await database.run(lambda _: None)
