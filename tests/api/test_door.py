"""What a stranger can hold open is bounded, and a kill gets in and is answered: over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import app, body_limit, connections, door, request_head
from api.descriptors import ConnectionBudget, budget_for
from tests.api.serving import KILL, Client, Reply, head, serving
from tests.api.world import KEY, World
from workflows.gateway import CoordinatorSilent

BODY = b'{"reason": "over the wire"}'
CONTROLS = [*range(0x09), *range(0x0A, 0x20), 0x7F]
# The ends of each range, and what ends a line: the others are the same to whoever reads the head.
TOLD_APART = (0x00, 0x08, 0x0A, 0x0D, 0x1F, 0x7F)


class Desk(World):
    """A served desk with counters of its own."""

    port: int

    async def connect(self) -> Client:
        client = await Client.connect(self.port)
        self.clients.append(client)
        return client

    async def ask(self, *data: bytes) -> Reply:
        client = await self.connect()
        for part in data:
            await client.send(part)
        return await client.reply()

    async def kill(self) -> Reply:
        return await self.ask(head(KILL, b"Content-Length: %d" % len(BODY)), BODY)

    def turned_away(self, reason: str) -> float:
        text = self.app.state.parts.instruments.scrape(None).decode()
        name = f'ais_http_connections_turned_away_total{{reason="{reason}"}} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    async def __aenter__(self) -> "Desk":
        self.clients: list[Client] = []
        self._stack = contextlib.AsyncExitStack()
        self.gateway.renew()
        self.port = await self._stack.enter_async_context(serving(self.app))
        return self

    async def __aexit__(self, *_: Any) -> None:
        for client in self.clients:
            client.close()
        await self._stack.aclose()


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Served with times short enough to be waited for."""
    monkeypatch.setattr(door, "FIRST_BYTE_SECONDS", 0.6)
    monkeypatch.setattr(door, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(door, "DRAIN_SECONDS", 0.4)
    monkeypatch.setattr(body_limit, "BODY_SECONDS", 0.4)
    async with Desk() as served:
        yield served


async def trickle(client: Client, data: bytes = b"x", every: float = 0.02) -> None:
    """Sends for ever, until nobody takes it."""
    with contextlib.suppress(ConnectionError):
        while True:
            await client.send(data)
            await asyncio.sleep(every)


# Times.


@pytest.mark.parametrize(
    "beginning", [b"GET /health/live HTTP/1.1\r\nX-A: ", b"\r\n", b"POST /control/kill-switch HTTP/1.1\r\nA: \x01"]
)
async def test_a_head_has_a_time_that_no_trickle_prolongs(desk: Desk, beginning: bytes) -> None:
    client = await desk.connect()
    await client.send(beginning)
    trickling = asyncio.create_task(trickle(client, b"\r\n" if beginning == b"\r\n" else b"x"))
    try:
        reply = await client.reply()
    finally:
        trickling.cancel()
    assert (reply.status, reply.json) == (408, {"detail": request_head.TOO_LATE})
    assert desk.turned_away("head_too_slow") == 1
    assert await client.is_closed() < 2


async def test_a_connection_without_a_byte_is_closed_without_an_answer(desk: Desk) -> None:
    client = await desk.connect()
    assert 0.5 < await client.is_closed() < 2
    assert desk.turned_away("head_too_slow") == 1


async def test_a_second_head_on_a_connection_has_the_same_time(desk: Desk) -> None:
    client = await desk.connect()
    live = head("/health/live", method="GET", key=None)
    await client.send(live + live[:20])
    assert (await client.reply()).status == 200
    assert (await client.reply()).status == 408


async def test_an_idle_connection_is_kept_between_requests(desk: Desk) -> None:
    client = await desk.connect()
    for _ in range(3):
        await client.send(head("/health/live", method="GET", key=None))
        assert (await client.reply()).status == 200
        await asyncio.sleep(door.HEAD_SECONDS * 1.5)


async def test_a_body_that_does_not_come_is_408_and_nothing_was_done(desk: Desk) -> None:
    reply = await desk.ask(head("/control/pause", b"Content-Length: 40"), b"{")
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert "nothing was done" in reply.json["detail"]
    assert desk.gateway.signals == []


async def test_a_stranger_with_half_a_body_is_answered_and_closed(desk: Desk) -> None:
    client = await desk.connect()
    await client.send(head("/control/pause", b"Content-Length: 4000", key=None) + b"{")
    assert (await client.reply()).status == 401
    trickling = asyncio.create_task(trickle(client))
    assert await client.is_closed() < 3
    trickling.cancel()
    assert desk.turned_away("body_too_slow") == 1


async def test_an_answer_that_nobody_reads_ends(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "UNREAD_SECONDS", 0.3)
    client = await desk.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    with contextlib.suppress(ConnectionError):
        for _ in range(200):
            await client.send(head("/openapi.json", method="GET", key=None))
    async with asyncio.timeout(180):
        while not desk.turned_away("answer_not_read"):
            await asyncio.sleep(0.05)


# Room.


@pytest.fixture
async def narrow(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Served with room for ten."""
    monkeypatch.setattr(app, "raise_limit", lambda: ConnectionBudget(10, 10))
    async with Desk() as served:
        yield served


async def test_the_oldest_stranger_makes_room_and_a_kill_gets_in(narrow: Desk) -> None:
    strangers = [await narrow.connect() for _ in range(10)]
    for stranger in strangers:
        await stranger.send(b"GET / HTTP/1.1\r\nX-A: ")
    assert (await narrow.kill()).json["action"] == "killed"
    await strangers[0].is_closed()
    assert narrow.turned_away("no_room") == 1
    assert not strangers[1].reader.at_eof()


async def test_who_has_shown_a_key_stays_while_strangers_come(narrow: Desk) -> None:
    operator = await narrow.connect()
    await operator.send(head("/control/mode", method="GET"))
    assert (await operator.reply()).status == 200
    for _ in range(30):
        await (await narrow.connect()).send(b"GET / HTTP/1.1\r\n")
    await operator.send(head(KILL))
    assert (await operator.reply()).json["action"] == "killed"
    assert narrow.turned_away("no_room") == 21


async def test_a_kill_gets_in_where_all_others_hold_a_key(narrow: Desk) -> None:
    for _ in range(10):
        known = await narrow.connect()
        await known.send(head("/control/mode", method="GET"))
        assert (await known.reply()).status == 200
    assert (await narrow.kill()).status == 200


async def test_what_is_turned_away_is_logged_once_in_a_while(narrow: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(connections, "LOG_SECONDS", 0.5)
    monkeypatch.setattr(connections.log, "warning", lambda _, **facts: told.append(facts), raising=False)
    for _ in range(40):
        await (await narrow.connect()).send(b"GET")
    async with asyncio.timeout(5):
        while sum(facts["count"] for facts in told) < 30:
            await asyncio.sleep(0.05)
    assert [facts["reason"] for facts in told] == ["no_room"] * len(told)
    assert len(told) <= 3


@pytest.mark.parametrize("descriptors", [256, 1024, 4096, 20_000, 1_000_000])
def test_descriptors_are_left_beside_connections_and_a_burst(descriptors: int) -> None:
    found = budget_for(descriptors)
    assert found.connections >= 16
    assert found.connections + found.waiting + 64 <= descriptors


# Heads that are no HTTP.


@pytest.mark.parametrize(
    "control",
    [pytest.param(each, marks=[] if each in TOLD_APART else [pytest.mark.thorough]) for each in CONTROLS],
)
async def test_a_kill_with_a_control_character_in_its_key_kills(desk: Desk, control: int) -> None:
    key = b"Idempotency-Key: a%cb" % control
    reply = await desk.ask(head(KILL, key, b"Content-Length: %d" % len(BODY)) + BODY)
    assert (reply.status, reply.json["reason"]) == (200, "over the wire")
    assert "Idempotency-Key must be" in reply.headers["x-ais-warning"]
    assert "fresh id" in reply.headers["x-ais-warning"]
    assert await desk.state() == "killed"


@pytest.mark.parametrize(
    "header",
    [b"no header at all", b"X-\x01A: b", b": nameless", b"X A: b", b"X-A: \x00", b"Content-Length: 3\x01", b"Content-Length: -1",
     b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"Transfer-Encoding: nonsense"],
)  # fmt: skip
async def test_a_kill_kills_whatever_stands_in_its_other_headers(desk: Desk, header: bytes) -> None:
    """Byte by byte, since the parser gives up before the head has ended, and before the key has come."""
    raw = head(KILL, header, key=None).removesuffix(b"\r\n") + head(KILL).split(b"\r\n")[2] + b"\r\n\r\n"
    reply = await desk.ask(*(raw[number : number + 1] for number in range(len(raw))), b'{"reason": "x"}')
    assert (reply.status, reply.json["action"]) == (200, "killed")


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"
WEBSOCKET = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13"
)


@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
@pytest.mark.parametrize("cut", ["at once", "head and body", "byte by byte"])
async def test_a_request_that_offers_an_upgrade_keeps_its_body(desk: Desk, upgrade: bytes, cut: str) -> None:
    # Found: the parser skips it. Java's own client offers h2c with each first request, and canceled the orders of all symbols.
    body = b'{"symbols": ["BTCUSDT"]}'
    raw = head("/control/cancel-all", upgrade, b"Content-Length: %d" % len(body))
    parts = {"at once": [raw + body], "head and body": [raw, body]}
    reply = await desk.ask(*parts.get(cut, [(raw + body)[n : n + 1] for n in range(len(raw + body))]))
    assert (reply.status, reply.json["symbols"]) == (200, ["BTCUSDT"])
    ((name, sent),) = desk.gateway.signals
    assert (name, sent["symbols"]) == ("cancel_all", ["BTCUSDT"])


async def test_a_kill_that_offers_an_upgrade_keeps_its_reason_and_the_next_request_is_answered(desk: Desk) -> None:
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    reply = await desk.ask(head(KILL, H2C, b"Transfer-Encoding: chunked"), chunked)
    assert (reply.status, reply.json["reason"]) == (200, "over the wire")
    client = await desk.connect()
    await client.send(head("/control/mode", method="GET") + head("/control/mode", H2C, method="GET"))
    assert [(await client.reply()).status for _ in range(2)] == [200, 200]


async def test_a_tunnel_is_refused(desk: Desk) -> None:
    assert (await desk.ask(head("api:443", method="CONNECT"))).status in (400, 404, 405)


@pytest.mark.parametrize("target", ["http://api:99999", "http://[", "https://", "HTTP://user:secret@api:8000"])
async def test_a_kill_kills_whatever_host_its_target_names(desk: Desk, target: str) -> None:
    # Found: one that the parser cannot read ended the connection without a word.
    reply = await desk.ask(head(target + KILL))
    assert (reply.status, reply.json["action"]) == (200, "killed")


@pytest.mark.parametrize("query", ["?reason=обвал".encode(), b"?reason=\xff&a", b"?reason=flash crash", b"? HTTP/1.1"])
async def test_a_kill_kills_whatever_its_query_holds(desk: Desk, query: bytes) -> None:
    # Found: curl sends such a query as it is typed, and the answer said that the head had not arrived.
    reply = await desk.ask(
        head(KILL, b"Content-Length: %d" % len(BODY)).replace(b"kill-switch", b"kill-switch" + query, 1), BODY
    )
    assert (reply.status, reply.json["action"], reply.json["reason"]) == (200, "killed", "over the wire")
    assert "query" in reply.headers["x-ais-warning"]


@pytest.mark.parametrize("target", ["http://api:99999", "http://api?x", "*", "api:99999", "https:x"])
async def test_a_target_that_cannot_be_read_is_answered(desk: Desk, target: str) -> None:
    reply = await desk.ask(head(target, method="OPTIONS"))
    assert (reply.status, reply.json) in [(404, {"detail": "Not Found"}), (400, {"detail": request_head.flaw(b"")})]


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_kill_whose_lines_end_in_line_feeds_alone_kills(desk: Desk, at_once: bool) -> None:
    """As `printf '…\\n' | nc` sends it. Its body has the end of other heads in it."""
    body = b'{"reason": "by hand"}\r\n\r\n\r\n'
    raw = head(KILL, b"Content-Length: %d" % len(body)).replace(b"\r\n", b"\n") + body
    parts = [raw] if at_once else [raw[number : number + 1] for number in range(len(raw))]
    reply = await desk.ask(*parts)
    assert (reply.status, reply.json["action"], reply.json["reason"]) == (200, "killed", "by hand")


@pytest.mark.parametrize("before", [b"", head("/control/mode", method="GET")])
async def test_a_client_that_sends_no_more_gets_its_answers(desk: Desk, before: bytes) -> None:
    """As `… | nc -N` and ncat do. Found: the kill was carried out, and its sender read nothing."""
    # The API waits for the coordinator meanwhile.
    desk.gateway.query_error = CoordinatorSilent("nobody")
    client = await desk.connect()
    await client.send(before + head(KILL, b"Content-Length: %d" % len(BODY)) + BODY)
    client.writer.write_eof()
    replies = [await client.reply() for _ in range(2 if before else 1)]
    assert (replies[-1].status, replies[-1].json["action"]) == (202, "kill_accepted")
    assert await client.is_closed() < 60


async def test_a_line_feed_in_a_header_of_a_kill_is_no_line_end(desk: Desk) -> None:
    """Whoever can write into one header must not be able to bring a key of its own."""
    raw = head(KILL, b"X-Note: a\nAuthorization: Bearer " + KEY.encode(), key=None)
    assert (await desk.ask(raw)).status == 401


async def test_a_kill_with_a_head_that_is_too_long_kills(desk: Desk) -> None:
    reply = await desk.ask(head(KILL, b"Idempotency-Key: " + b"x" * 300_000))
    assert (reply.status, reply.json["action"]) == (200, "killed")


async def test_a_broken_kill_without_a_key_is_401(desk: Desk) -> None:
    for key in (None, "wrong", "broken\x01"):
        assert (await desk.ask(head(KILL, b"Idempotency-Key: \x01", key=key))).status == 401
    assert desk.gateway.signals == []


@pytest.mark.parametrize("path", ["/control/pause", "/control/kill-switches", "/x/control/kill-switch", "/health"])
async def test_others_with_a_control_character_are_told_which_header(desk: Desk, path: str) -> None:
    reply = await desk.ask(head(path, b"Idempotency-Key: a\x01b"))
    assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
    assert "Idempotency-Key holds a control character" in reply.json["detail"]
    assert desk.gateway.signals == []
    assert desk.turned_away("not_http") == 1


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x00\xa5", b"hello\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"])
async def test_what_is_no_http_at_all_is_400_in_json(desk: Desk, garbage: bytes) -> None:
    reply = await desk.ask(garbage)
    assert reply.status == 400
    assert "HTTP/1.1" in reply.json["detail"]


async def test_a_head_without_end_is_431(desk: Desk) -> None:
    reply = await desk.ask(b"GET / HTTP/1.1\r\nX-A: " + b"x" * 300_000)
    assert (reply.status, reply.json) == (431, {"detail": request_head.TOO_LARGE})


# Bodies that are larger than what is read.


def give_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a client that is meant to be in time: on a busy machine it is slow, too."""
    monkeypatch.setattr(door, "DRAIN_SECONDS", 60.0)
    monkeypatch.setattr(body_limit, "BODY_SECONDS", 60.0)


@pytest.mark.parametrize("closing", [True, False])
@pytest.mark.parametrize("megabytes", [1, 10])
async def test_the_client_of_a_kill_with_a_large_body_reads_its_answer(
    desk: Desk, megabytes: int, closing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client sends it all before it reads, as most do, and slowly enough that the answer is there long before."""
    give_time(monkeypatch)
    size = megabytes * 1024 * 1024
    client = await desk.connect()
    await client.send(head(KILL, b"Content-Length: %d" % size, *([b"Connection: close"] if closing else [])))
    for _ in range(16):
        await client.send(b"x" * (size // 16))
        await asyncio.sleep(0.01)
    reply = await client.reply()
    assert (reply.status, reply.json["action"]) == (200, "killed")
    assert "larger than 64 KiB" in reply.headers["x-ais-warning"]
    if not closing:
        await client.send(head("/control/status", method="GET"))
        assert (await client.reply()).json == {"state": "killed"}


@pytest.mark.parametrize(("key", "status"), [("wrong", 401), (None, 401)])
async def test_a_stranger_with_a_large_body_reads_its_401(
    desk: Desk, key: str | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_time(monkeypatch)
    size = 2 * 1024 * 1024
    raw = head("/control/pause", b"Content-Length: %d" % size, b"Connection: close", key=key)
    assert (await desk.ask(raw, b"x" * size)).status == status


async def test_what_is_read_after_the_answer_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "DRAIN_BYTES", 1024 * 1024)
    client = await desk.connect()
    with contextlib.suppress(ConnectionError):
        await client.send(head(KILL, b"Transfer-Encoding: chunked"))
        await asyncio.wait_for(trickle(client, b"10000\r\n" + b"x" * 0x10000 + b"\r\n", 0), 10)
    assert await desk.state() == "killed"
    assert desk.turned_away("body_too_slow") == 1


def test_an_unfinished_head_of_bare_line_feeds_costs_a_search_for_each_piece() -> None:
    """Rewritten for each byte, 64 KiB of short lines would hold up the loop that serves kills."""
    head_so_far = b"POST /control/kill-switch HTTP/1.1\n" + b"a\n" * 30_000
    assert request_head.split(head_so_far) == (head_so_far, b"", b"")
    whole, end, body = request_head.split(head_so_far + b"\nbody")
    assert (whole.count(b"\r\n"), end, body) == (30_000, b"\n\n", b"body")
