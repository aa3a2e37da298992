"""The mirror in a real Valkey: right where it can be reached, of no consequence where it cannot."""

import asyncio
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
from pydantic import ValidationError

from activities import mirror as mirror_module
from activities.mirror import Mirror, facts_of
from api.redis_probe import RedisProbe
from domain.desk.states import State
from domain.desk.status import Status
from settings import RedisSettings, explain
from tests.house.sources import ROOT
from tests.mirror.valkey import Valkey
from tests.storage.test_notices import make_status

BEGIN = datetime(2026, 3, 12, 14, 30, tzinfo=UTC)
STATE, EVENTS = "ais:{main}:state", "ais:{main}:events"


def at(seconds: float, state: State = State.RUNNING, **changes: Any) -> Status:
    """The desk as its cycle at this second left it."""
    facts = {"last_cycle_at": BEGIN + timedelta(seconds=seconds), "started_at": BEGIN, "since": BEGIN, "actor": "cli"}
    return make_status("main", state=state, **facts | changes)


def killed(seconds: float, number: int = 1) -> Status:
    moment = BEGIN + timedelta(seconds=seconds)
    why = {"actor": "anna", "reason": "flash \u201ccrash\u201d"}
    return at(seconds, State.KILLED, since=moment, last_kill_at=moment, kill_number=number, **why)


class Desk:
    """What the coordinator says; None while it does not."""

    def __init__(self) -> None:
        self.status: Status | None = at(0)
        self.asked = 0

    async def __call__(self) -> Status | None:
        self.asked += 1
        return self.status


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(mirror_module, "POLL_SECONDS", 0.05)
    return Desk()


@asynccontextmanager
async def mirrored(valkey: Valkey, desk: Desk, url: str | None = None) -> AsyncIterator[None]:
    running = asyncio.create_task(Mirror(url or valkey.url, "main", desk).run())
    try:
        yield
    finally:
        running.cancel()
        began = time.monotonic()
        await asyncio.wait({running})
        assert time.monotonic() - began < 2.5, "the mirror must not hold up the end of its worker"


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.02)


async def test_a_change_is_in_the_state_the_stream_and_the_channel_and_a_cycle_in_the_state_alone(
    valkey: Valkey,
) -> None:
    client = valkey.client()
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(EVENTS)
    listener.get_message(timeout=2)
    mirror = Mirror(valkey.url, "main", Desk())
    assert [await mirror.write(status) for status in (at(0), at(5), killed(7), killed(7))] == [True, False, True, False]
    found = client.hgetall(STATE)
    expected = facts_of(killed(7), datetime.now(UTC))
    assert found | {"at": ""} == expected | {"at": ""}
    assert set(found) == {"state", "since", "actor", "reason", "kill_number", "mode", "seq", "at"}
    events = [fields for _, fields in client.xrange(EVENTS)]
    assert [event["state"] for event in events] == ["running", "killed"]
    assert events[-1] == found | {"at": events[-1]["at"]}
    heard = [json.loads(message["data"]) for message in iter(lambda: listener.get_message(timeout=1), None)]
    assert heard == events
    await mirror.close()


async def test_an_older_write_never_overwrites_a_newer_one(valkey: Valkey) -> None:
    mirror, client = Mirror(valkey.url, "main", Desk()), valkey.client()
    await mirror.write(killed(7))
    await mirror.write(at(5))
    assert (client.hget(STATE, "state"), client.xlen(EVENTS)) == ("killed", 1)
    await mirror.write(at(8, kill_number=1))
    assert (client.hget(STATE, "state"), client.xlen(EVENTS)) == ("running", 2)
    await mirror.close()


async def test_a_new_kill_is_shown_though_the_clock_was_set_back(valkey: Valkey) -> None:
    """Found to be false: with a cycle of a day, `running` stood there for three days after a kill."""
    mirror, client = Mirror(valkey.url, "main", Desk()), valkey.client()
    await mirror.write(at(3600, cycle_seconds=86_400))
    assert not await mirror.write(at(0))
    assert await mirror.write(killed(7))
    assert (client.hget(STATE, "state"), client.xlen(EVENTS)) == ("killed", 2)
    assert not await mirror.write(at(5))
    assert await mirror.write(at(8, kill_number=1))
    await mirror.close()


@pytest.mark.parametrize("wrong", ["", "nonsense"])
async def test_a_number_that_is_none_is_overwritten(valkey: Valkey, wrong: str) -> None:
    mirror, client = Mirror(valkey.url, "main", Desk()), valkey.client()
    client.hset(STATE, mapping={"seq": wrong, "kill_number": wrong})
    client.xadd(EVENTS, {"seq": wrong})
    assert await mirror.write(at(0))
    assert client.hget(STATE, "state") == "running"
    await mirror.close()


async def test_an_older_write_stands_nowhere_even_if_the_newer_state_is_gone(valkey: Valkey) -> None:
    mirror, client = Mirror(valkey.url, "main", Desk()), valkey.client()
    await mirror.write(killed(7))
    client.delete(STATE)
    assert not await mirror.write(at(5))
    assert (client.exists(STATE), client.xlen(EVENTS)) == (0, 1)
    await mirror.close()


async def test_what_nobody_confirms_expires_and_its_return_is_no_event(valkey: Valkey) -> None:
    mirror, client = Mirror(valkey.url, "main", Desk()), valkey.client()
    await mirror.write(at(0))
    assert 10_000 < client.pttl(STATE) <= 15_000
    # A worker writes every second, so a slow desk's state says nothing for longer either.
    await mirror.write(at(0, cycle_seconds=3_600.0))
    assert 170_000 < client.pttl(STATE) <= 180_000
    await mirror.write(killed(1))
    assert 3_590_000 < client.pttl(STATE) <= 3_600_000
    assert client.pttl(EVENTS) == -1
    client.delete(STATE)
    await mirror.write(killed(1))
    assert (client.hget(STATE, "state"), client.xlen(EVENTS)) == ("killed", 2)
    await mirror.close()


async def test_the_stream_is_trimmed(valkey: Valkey) -> None:
    client = valkey.client()
    mirror = Mirror(valkey.url, "main", Desk())
    for chunk in range(120):
        with client.pipeline() as pipeline:
            for _ in range(100):
                pipeline.xadd(EVENTS, {"state": str(chunk)})
            pipeline.execute()
    await mirror.write(at(0))
    assert 10_000 <= client.xlen(EVENTS) < 10_200
    await mirror.close()


@pytest.mark.parametrize("trouble", ["killed", "stopped", "full", "locked", "replica", "emptied"])
async def test_the_mirror_is_right_again_after_any_trouble_and_the_probe_tells_the_truth(
    trouble: str, valkey: Valkey, desk: Desk
) -> None:
    probe, client = RedisProbe(valkey.url, "main"), valkey.client()
    async with mirrored(valkey, desk):
        await until(lambda: client.hget(STATE, "state") == "running")
        assert await probe.connected()
        _begin(trouble, valkey)
        asked, desk.status = desk.asked, killed(7)
        if trouble != "emptied":
            began = time.monotonic()
            assert not await probe.connected()
            assert time.monotonic() - began < 1.8 + 1
        # It goes on asking, with a bounded wait each time.
        await until(lambda: desk.asked >= asked + 2)
        _end(trouble, valkey)
        began = time.monotonic()
        await until(lambda: _state(valkey) == "killed")
        assert time.monotonic() - began < 5
        await _until_connected(probe)
    await probe.close()


def _begin(trouble: str, valkey: Valkey) -> None:
    client = valkey.client()
    match trouble:
        case "killed":
            valkey.signal(signal.SIGKILL)
        case "stopped":
            valkey.signal(signal.SIGSTOP)
        case "full":
            client.config_set("maxmemory", "1")
        case "locked":
            client.config_set("requirepass", "another")
            client.client_kill_filter(_type="normal", skipme=True)
        case "replica":
            client.replicaof("127.0.0.1", "1")
        case "emptied":
            client.flushall()


def _end(trouble: str, valkey: Valkey) -> None:
    match trouble:
        case "killed":
            valkey.start()
        case "stopped":
            valkey.signal(signal.SIGCONT)
        case "full":
            valkey.client().config_set("maxmemory", "0")
        case "locked":
            valkey.client(password="another").config_set("requirepass", "")
        case "replica":
            valkey.client().replicaof("NO", "ONE")


def _state(valkey: Valkey) -> object:
    try:
        return valkey.client().hget(STATE, "state")
    except redis.RedisError:
        return None


async def _until_connected(probe: RedisProbe) -> None:
    async with asyncio.timeout(180):
        while not await probe.connected():
            await asyncio.sleep(0.05)


async def test_a_name_server_that_hangs_takes_one_thread_of_its_own_and_holds_up_no_other_lookup(
    valkey: Valkey, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked, real = threading.Event(), list[threading.Thread](), socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "redis.test":
            asked.append(threading.current_thread())
            answers.wait(20)
            return real("127.0.0.1", *rest, **more)
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(mirror_module, "SOCKET_SECONDS", 0.1)
    url = valkey.url.replace("127.0.0.1", "redis.test")
    probe, loop = RedisProbe(url, "main"), asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:
        loop.set_default_executor(pool)
        try:
            async with mirrored(valkey, desk, url):
                assert not await probe.connected()
                await until(lambda: desk.asked > 4)
                assert len(asked) == 2, "one of the mirror and one of the probe"
                async with asyncio.timeout(1):
                    await loop.getaddrinfo("localhost", 80)
                answers.set()
                await until(lambda: valkey.client().exists(STATE))
                assert await probe.connected()
        finally:
            answers.set()
            await probe.close()
            loop._default_executor = None  # type: ignore[attr-defined]


@pytest.mark.parametrize("trouble", ["nobody", "silent", "hung", "replica"])
async def test_every_address_of_a_name_is_tried(
    trouble: str, valkey: Valkey, tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        hosts = ("127.0.0.2", "127.0.0.1") if host == "redis.test" else (host,)
        return [each for one in hosts for each in real(one, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = valkey.url.replace("127.0.0.1", "redis.test")
    probe = RedisProbe(url, "main")
    with _first_address(trouble, valkey.port, tmp_path):
        async with mirrored(valkey, desk, url):
            await until(lambda: _state(valkey) == "running")
            await _until_connected(probe)
    await probe.close()


@contextmanager
def _first_address(trouble: str, port: int, folder: Path) -> Iterator[None]:
    """What is at 127.0.0.2: nobody, a host that answers no packet, a process that hangs, or a server that takes no writes."""
    if trouble == "replica":
        other = Valkey(folder, "127.0.0.2", port)
        try:
            other.start("--bind", "127.0.0.2", "--replicaof", "127.0.0.1 1")
            yield
        finally:
            other.stop()
        return
    with socket.socket() as listening, socket.socket() as first:
        if trouble != "nobody":
            listening.bind(("127.0.0.2", port))
            listening.listen(0 if trouble == "silent" else 100)
        if trouble == "silent":
            # The queue is full then, and the system drops what comes.
            first.connect(("127.0.0.2", port))
        yield


async def test_a_wrong_password_is_in_no_log(valkey: Valkey, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    caplog.set_level(logging.DEBUG)
    valkey.client().config_set("requirepass", "right")
    url = valkey.url.replace("redis://", "redis://:wr0ng-Pa55word@")
    async with mirrored(valkey, desk, url):
        await until(lambda: "not up to date" in caplog.text)
        await until(lambda: desk.asked > 3)
    assert "AuthenticationError" in caplog.text
    assert "wr0ng" not in caplog.text
    assert caplog.text.count("not up to date") == 1
    probe = RedisProbe(url, "main")
    assert not await probe.connected()
    await probe.close()


async def test_a_coordinator_that_says_nothing_leaves_the_mirror_to_expire(valkey: Valkey, desk: Desk) -> None:
    desk.status = None
    async with mirrored(valkey, desk):
        await until(lambda: desk.asked > 3)
    assert valkey.client().exists(STATE) == 0


def test_without_a_url_nothing_is_connected_and_nothing_imported() -> None:
    # In a process of its own: this one has imported it.
    done = subprocess.run([sys.executable, "-c", WITHOUT_URL], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False False", done.stdout + done.stderr


WITHOUT_URL = """
import asyncio, sys
import activities.mirror
from api.redis_probe import RedisProbe
print(asyncio.run(RedisProbe(None, "main").connected()), "redis" in sys.modules)
"""


@pytest.mark.parametrize("url", ["http://:s3cret@host", "redis://:s3cret@", "redis://:s3cret@host:x", "unix://"])
def test_a_wrong_url_is_refused_without_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_REDIS_URL", url)
    with pytest.raises(ValidationError) as refused:
        RedisSettings()
    told = explain(refused.value)
    assert told.startswith("AIS_REDIS_URL is set, but not a Redis URL. Allowed: redis://")
    assert "s3cret" not in told
