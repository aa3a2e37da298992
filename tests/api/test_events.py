"""The console's stream of events, over real sockets."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from api import app, door, feed
from domain.desk.states import State
from domain.desk.status import Outcomes
from tests.api.serving import KILL, Client, Reply, head, serving
from tests.api.world import World, make_decision, make_settings
from workflows.gateway import CoordinatorPaused, CoordinatorSilent

PATH = "/control/events"
SILENT = "no worker answered for the coordinator of desk 'main'"


class Event(NamedTuple):
    """One event, or a comment, whose name is then empty. `at`: when the coordinator was read."""

    name: str
    data: Any = None
    id: str | None = None
    at: datetime | None = None


class Stream:
    """One open stream, read chunk by chunk."""

    def __init__(self, client: Client, reply: Reply) -> None:
        self.client = client
        self.head = reply
        self._events: list[Event] = []

    async def next(self, seconds: float = 30.0) -> Event:
        async with asyncio.timeout(seconds):
            while not self._events:
                size = int(await self.client.reader.readuntil(b"\r\n"), 16)
                text = (await self.client.reader.readexactly(size + 2))[:-2].decode()
                assert size, "the stream has ended"
                self._events += [read(part) for part in text.split("\n\n") if part]
        return self._events.pop(0)

    async def of(self, name: str, seconds: float = 5.0) -> Event:
        async with asyncio.timeout(seconds):
            while (event := await self.next()).name != name:
                pass
        return event


def read(text: str) -> Event:
    assert text.startswith(":") == ("event: " not in text), "what begins with a comment is read as one"
    fields = dict(line.split(": ", 1) for line in text.split("\n") if not line.startswith(":"))
    read_at = re.search(r"^: read (\S+)$", text, re.MULTILINE)
    at = datetime.fromisoformat(read_at[1]) if read_at else None
    return Event(fields.get("event", ""), json.loads(fields.get("data", "null")), fields.get("id"), at)


class Watched(World):
    """A served desk whose events are watched."""

    port: int
    grace = 1

    async def open(self, *headers: bytes, key: bool = True) -> Stream:
        client = await Client.connect(self.port)
        self.clients.append(client)
        await client.send(head(PATH, *headers, method="GET", **({} if key else {"key": None})))
        return Stream(client, await client.reply())

    async def ask(self, data: bytes) -> Reply:
        client = await Client.connect(self.port)
        self.clients.append(client)
        await client.send(data)
        return await client.reply()

    async def __aenter__(self) -> "Watched":
        self.clients: list[Client] = []
        self._stack = contextlib.AsyncExitStack()
        self.port = await self._stack.enter_async_context(serving(self.app, self.grace))
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._stack.aclose()
        for client in self.clients:
            client.close()


@pytest.fixture
async def desk() -> AsyncIterator[Watched]:
    async with Watched() as served:
        yield served


async def test_it_begins_with_the_whole_status_and_the_newest_decision(desk: Watched) -> None:
    desk.reports.rows = [make_decision(7)]
    stream = await desk.open()
    assert (stream.head.status, stream.head.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    events = [await stream.next(), await stream.next()]
    found = {event.name: event for event in events}
    status = (await desk.ask(head("/control/coordinator", method="GET"))).json
    assert found["status"].data == status
    assert found["log"].data == {"decision_id": f"decision_{7:032x}", "timestamp": "2026-03-12T14:30:07+00:00"}
    assert found["log"].id == f"decision_{7:032x}"


async def test_its_head_says_what_a_person_needs_without_the_api(desk: Watched) -> None:
    headers = (await desk.open()).head.headers
    assert headers["x-ais-workflow"] == "coordinator-main"
    assert (headers["x-ais-temporal-address"], headers["x-ais-temporal-namespace"]) == ("127.0.0.1:7233", "default")
    assert headers["x-ais-lock-minutes"] == "30"


async def test_the_lines_for_a_terminal_may_name_another_address_of_temporal_than_the_apis_own() -> None:
    settings = make_settings(console_temporal_address="desk.example.com:7233")
    terms = app._page_terms(replace(settings, temporal={"target_host": "temporal:7233"}))
    assert terms["X-AIS-Temporal-Address"] == "desk.example.com:7233"


async def test_without_the_key_it_is_401(desk: Watched) -> None:
    stream = await desk.open(key=False)
    assert (stream.head.status, stream.head.json) == (401, {"detail": "Not authenticated"})


async def test_a_kill_is_reported_at_once(desk: Watched) -> None:
    stream = await desk.open()
    assert (await stream.of("status")).data["state"] == "running"
    assert (await desk.ask(head(KILL))).status == 200
    assert (await stream.of("status")).data["state"] == "killed"


async def test_a_status_that_stays_is_confirmed_by_comments(desk: Watched) -> None:
    stream = await desk.open()
    await stream.of("status")
    assert [(await stream.next()).name for _ in range(2)] == ["", ""]


async def test_it_says_when_the_coordinator_was_read_so_that_a_proxy_that_keeps_events_is_seen(desk: Watched) -> None:
    earlier = datetime.now(UTC) - timedelta(milliseconds=1)
    stream = await desk.open()
    assert stream.head.headers["x-accel-buffering"] == "no"
    for name in ("status", ""):
        event = await stream.of(name)
        assert event.at is not None
        assert earlier < event.at <= datetime.now(UTC)
        earlier = event.at


async def test_a_stream_sends_a_status_at_most_four_times_a_second(desk: Watched) -> None:
    stream = await desk.open()
    await stream.of("status")
    number, seen = 0, []

    async def change() -> None:
        nonlocal number
        while True:
            number += 1
            desk.gateway.carried.reason = f"reason {number}"
            await asyncio.sleep(0.01)

    changing = asyncio.create_task(change())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            while True:
                seen.append(await stream.of("status"))
    changing.cancel()
    assert 2 <= len(seen) <= 4


async def test_what_the_coordinator_cannot_answer_is_reported_and_never_confirmed_as_status(desk: Watched) -> None:
    stream = await desk.open()
    await stream.of("status")
    desk.gateway.query_error = CoordinatorSilent(SILENT)
    detail = (await desk.ask(head("/control/coordinator", method="GET"))).json
    assert (
        (await stream.of("unavailable")).data == {**detail, "cause": "silent"} == {"detail": SILENT, "cause": "silent"}
    )
    # Of this one a page must not say that the next worker carries a kill out.
    desk.gateway.query_error = CoordinatorPaused("main")
    assert (await stream.of("unavailable")).data["cause"] == "paused"
    desk.gateway.query_error = None
    while (event := await stream.next()).name != "status":
        assert event.name == ""
    assert event.data["state"] == "running"


async def test_a_coordinator_that_is_silent_is_told_before_readers_call_the_status_stale(desk: Watched) -> None:
    stream = await desk.open()
    await stream.of("status")
    desk.gateway.no_worker = True
    assert "did not answer within 2.0 s" in (await stream.of("unavailable")).data["detail"]


async def test_a_newcomer_is_shown_no_status_from_before_it_came(desk: Watched) -> None:
    first = await desk.open()
    await first.of("status")
    desk.gateway.no_worker = True
    await first.of("unavailable")
    second = await desk.open()
    assert (await second.of("unavailable")).data["detail"]


async def test_the_log_goes_on_after_the_last_event_id(desk: Watched) -> None:
    desk.reports.rows = [make_decision(1)]
    stream = await desk.open(b"Last-Event-ID: decision_" + f"{1:032x}".encode())
    await stream.of("status")
    desk.reports.rows = [make_decision(2), make_decision(1)]
    assert (await stream.of("log")).id == f"decision_{2:032x}"
    again = await desk.open(b"Last-Event-ID: decision_" + f"{1:032x}".encode())
    assert (await again.of("log")).id == f"decision_{2:032x}"


async def test_a_row_that_is_written_after_later_ones_is_announced(desk: Watched) -> None:
    desk.reports.rows = [make_decision(3), make_decision(1)]
    stream = await desk.open()
    assert (await stream.of("log")).id == make_decision(3).decision_id
    desk.reports.rows.insert(1, make_decision(2))
    assert (await stream.of("log")).id == make_decision(2).decision_id


async def test_a_row_from_a_clock_that_is_ahead_hides_no_row_after_it(desk: Watched) -> None:
    ahead = make_decision(1, timestamp=datetime.now(UTC) + timedelta(hours=1))
    desk.reports.rows = [ahead]
    stream = await desk.open()
    assert (await stream.of("log")).id == ahead.decision_id
    # A page shows the newest first, by the rows' own times.
    for number in (2, 3):
        later = make_decision(number, timestamp=datetime.now(UTC))
        desk.reports.rows = [ahead, later]
        assert (await stream.of("log")).id == later.decision_id


async def test_many_streams_cost_one_query_and_a_kill_does_not_wait_for_them(desk: Watched) -> None:
    streams = [await desk.open() for _ in range(200)]
    for stream in streams:
        await stream.of("status", 10)
    queries, reads, began = desk.gateway.queries, len(desk.reports.asked), time.monotonic()
    for stream in streams:
        for _ in range(2):
            assert (await stream.next()).name == ""
    seconds = time.monotonic() - began
    assert desk.gateway.queries - queries <= seconds / feed.STATUS_SECONDS + 2
    assert len(desk.reports.asked) - reads <= seconds / feed.LOG_SECONDS + 2
    assert (await desk.ask(head(KILL))).status == 200
    for stream in streams:
        assert (await stream.of("status")).data["state"] == "killed"


async def test_a_command_that_waits_for_its_outcome_has_the_query_to_itself_for_a_while(
    desk: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    queried: list[tuple[str, ...]] = []
    signal, outcomes = desk.gateway.signal, desk.gateway.outcomes

    async def slow_signal(name: str, payload: dict[str, Any], seconds: float = 2.0) -> None:
        queried.clear()
        await asyncio.sleep(0.4)
        await signal(name, payload)

    async def noted(command_ids: Iterable[str] = (), *, urgent: bool = False) -> Outcomes:
        queried.append(tuple(command_ids))
        return await outcomes(queried[-1])

    monkeypatch.setattr(feed, "STATUS_SECONDS", 0.02)
    monkeypatch.setattr(desk.gateway, "signal", slow_signal)
    monkeypatch.setattr(desk.gateway, "outcomes", noted)
    stream = await desk.open()
    await stream.of("status")
    assert (await desk.ask(head(KILL, b"Idempotency-Key: first"))).status == 200
    assert queried[0] == ("first",)
    assert (await stream.of("status")).data["state"] == "killed"
    # Commands without a pause between them do not make the status stale.
    monkeypatch.setattr(feed, "YIELD_SECONDS", 0.1)
    await desk.ask(head(KILL))
    assert () in queried


async def test_nothing_is_read_while_nobody_watches(desk: Watched) -> None:
    stream = await desk.open()
    await stream.of("status")
    stream.client.close()
    await asyncio.sleep(0.2)
    before = desk.gateway.queries
    await asyncio.sleep(0.6)
    assert (desk.gateway.queries, desk.app.state.parts.feed.streams) == (before, 0)


async def test_a_client_that_does_not_read_is_dropped(desk: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "UNREAD_STREAM_SECONDS", 0.3)
    monkeypatch.setattr(feed, "STATUS_SECONDS", 0.001)
    stream = await desk.open()
    await stream.of("status")
    assert desk.app.state.parts.feed.streams == 1
    async with asyncio.timeout(180):
        number = 0
        while desk.app.state.parts.feed.streams:
            number += 1
            desk.gateway.carried.reason = f"{number} " + "long " * 20_000
            await asyncio.sleep(0.001)
    assert "answer_not_read" in desk.app.state.parts.instruments.scrape(None).decode()


async def test_streams_are_counted_before_they_send_and_given_back_if_they_never_do(desk: Watched) -> None:
    fed = desk.app.state.parts.feed
    watchers = [fed.watch(None) for _ in range(3)]
    assert fed.streams == 3
    for watcher in [*watchers, *watchers]:
        watcher.close()
    assert fed.streams == 0


async def test_a_request_behind_a_stream_ends_it_and_is_answered(desk: Watched) -> None:
    for raw in (head(PATH, method="GET"), head("/health/live", method="GET") + head(PATH, method="GET")):
        client = await Client.connect(desk.port)
        desk.clients.append(client)
        await client.send(raw + head(KILL))
        async with asyncio.timeout(5):
            await client.reader.readuntil(b'"action":"killed"')
    assert desk.app.state.parts.feed.streams == 0


BROKEN_KILL = head(KILL, b"X-A: a\x01b", b"Content-Length: 15") + b'{"reason": "x"}'
LIVE = head("/health/live", method="GET")
POST = head("/control/pause", b"Content-Length: 2") + b"{}"


BEFORE = [b"", head(PATH, method="GET"), LIVE, LIVE + head(PATH, method="GET"), POST]
CUTS = [0, 1, 40, len(BROKEN_KILL) - 16, len(BROKEN_KILL)]


def each_once(before: bytes, cut: int) -> list[pytest.MarkDecorator]:
    """Of all pairs, those that leave no cut and nothing before it untried: by an open stream, and in one piece with it."""
    is_quick = not before or cut == len(BROKEN_KILL) or (before, cut) == (BEFORE[1], 40)
    return [] if is_quick else [pytest.mark.thorough]


@pytest.mark.parametrize(
    ("before", "cut"), [pytest.param(b, cut, marks=each_once(b, cut)) for b in BEFORE for cut in CUTS]
)
async def test_a_kill_that_is_no_http_behind_a_stream_ends_it_and_kills(desk: Watched, before: bytes, cut: int) -> None:
    """Behind a stream that is open, and in one piece with whatever stands before it."""
    desk.gateway.renew()
    client = await Client.connect(desk.port)
    desk.clients.append(client)
    if not before:
        await client.send(head(PATH, method="GET"))
        await Stream(client, await client.reply()).of("status")
    await client.send(before + BROKEN_KILL[:cut])
    await asyncio.sleep(0.05)
    await client.send(BROKEN_KILL[cut:])
    async with asyncio.timeout(5):
        answers = await client.reader.read(-1)
    assert b'"action":"killed"' in answers
    assert (await desk.state(), desk.app.state.parts.feed.streams) == ("killed", 0)
    assert desk.gateway.signals[-1][1]["reason"] == "x"


@pytest.mark.parametrize("behind", [head("/control/pause", b"X-A: a\x01b"), b"POST /control/kill-switch HTTP/1.1\r\n"])
async def test_what_is_no_request_behind_a_stream_closes_the_connection(
    desk: Watched, behind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its client would wait for an answer for as long as the stream goes on."""
    monkeypatch.setattr(door, "HEAD_SECONDS", 0.3)
    stream = await desk.open()
    await stream.of("status")
    await stream.client.send(behind)
    async with asyncio.timeout(3):
        assert (await stream.client.reader.read(-1)).endswith(b"0\r\n\r\n")
    assert desk.app.state.parts.feed.streams == 0
    assert desk.gateway.signals == []


async def test_a_fault_of_the_feed_is_logged_once(desk: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(feed.log, "exception", told.append, raising=False)
    monkeypatch.setattr(feed, "STATUS_SECONDS", 0.01)
    stream = await desk.open()
    await stream.of("status")
    desk.gateway.query_error = RuntimeError("a bug")
    async with asyncio.timeout(5):
        before = desk.gateway.queries
        while desk.gateway.queries < before + 5:
            await asyncio.sleep(0.01)
    assert told == ["events cannot be read"]


async def test_streams_leave_room_for_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_STREAMS", 2)
    async with Watched() as desk:
        for _ in range(2):
            await (await desk.open()).of("status")
        refused = await desk.open()
        assert (refused.head.status, refused.head.headers["retry-after"]) == (503, "10")
        assert (await desk.ask(head(KILL))).status == 200
        assert desk.gateway.carried.state is State.KILLED


@pytest.mark.parametrize("behind", [b"", head(KILL)[:30]])
async def test_the_server_stops_at_once_with_streams_open(behind: bytes) -> None:
    desk = Watched()
    desk.grace = 60
    async with desk:
        stream = await desk.open()
        await stream.client.send(behind)
        for _ in range(2):
            await stream.next()
        began = time.monotonic()
    assert time.monotonic() - began < desk.grace / 2


async def test_it_is_counted_when_it_begins_and_not_by_how_long_it_stays(desk: Watched) -> None:
    stream = await desk.open()
    await stream.of("status")
    labels = f'method="GET",route="{PATH}",status="200"'

    def counted() -> list[str]:
        text = desk.app.state.parts.instruments.scrape(None).decode()
        return [
            line
            for line in text.splitlines()
            if labels in line and ("_total" in line or "_bucket" in line or "_sum" in line)
        ]

    before = counted()
    assert f"ais_http_requests_total{{{labels}}} 1.0" in before
    assert f'ais_http_request_seconds_bucket{{le="+Inf",{labels}}} 1.0' in before
    stream.client.close()
    async with asyncio.timeout(180):
        while desk.app.state.parts.feed.streams:
            await asyncio.sleep(0.02)
    assert counted() == before
