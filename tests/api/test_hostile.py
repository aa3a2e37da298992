"""What no client sends that means well: bodies, keys and chunks of every broken kind. No 500, and a kill is carried out."""

import asyncio
import contextlib
import gzip
import json
import resource
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import body_limit, door, kill_body
from tests.api.serving import KILL, Client, Reply, head, serving
from tests.api.world import AUTHORIZED, KEY, World

REFUSED_OR_TAKEN = {200, 202, 409, 413, 422}
MEGABYTES = 10 * 1024 * 1024

TEXT = '{"reason": "ü", "symbol": "BTCUSDT"}'
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \t\r\n" * 1000,
    "null": b"null",
    "true": b"true",
    "half": b'{"reason": "x',
    "two": b"{}{}",
    "a comment": b'{} // "reason"',
    "lists in lists": b"[" * 30_000 + b"]" * 30_000,
    "lists without an end": b"[" * 60_000,
    "objects in objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "objects in a reason": b'{"reason":' * 5_000 + b"1" + b"}" * 5_000,
    "a list of nothing": b"[" + b"0," * 30_000 + b"0]",
    "symbols without an end": b'{"symbols": [' + b'"BTCUSDT",' * 6_000 + b'"BTCUSDT"]}',
    "limits without an end": b'{"limits": {' + b",".join(b'"l%d": 1' % n for n in range(4_000)) + b"}}",
    "a long name": b'{"' + b"n" * 60_000 + b'": 1}',
    "a long text": b'{"reason": "' + b"x" * 60_000 + b'"}',
    "digits without an end": b'{"symbol": "BTCUSDT", "reduce_pct": ' + b"1" * 50_000 + b"}",
    "a huge exponent": b'{"symbol": "BTCUSDT", "reduce_pct": 1e999999999, "limits": {"max_leverage": 1e999999999}}',
    "a tiny exponent": b'{"symbol": "BTCUSDT", "reduce_pct": 1e-999999999, "limits": {"max_leverage": "1e-999999999"}}',
    "NaN": b'{"symbol": "BTCUSDT", "reduce_pct": NaN, "limits": {"max_leverage": NaN}, "confidence": NaN}',
    "Infinity": b'{"symbol": "BTCUSDT", "reduce_pct": Infinity, "limits": {"max_leverage": -Infinity}}',
    "NaN as text": b'{"limits": {"max_leverage": "NaN", "max_positions": "Infinity"}, "reduce_pct": "NaN"}',
    "a name twice": b'{"reason": "a", "reason": "b", "symbol": "BTCUSDT", "symbol": "ETHUSDT"}',
    "half a pair": b'{"reason": "\\ud800", "symbol": "\\udfff", "symbols": ["\\ud83d"], "agent_id": "\\ud800"}',
    "a name of half a pair": b'{"\\ud800": 1, "limits": {"\\udc00": 1}}',
    "control characters": b'{"reason": "\\u0000\\u001b[2J\\r\\n", "symbol": "\\u0000"}',
    "raw control characters": b'{"reason": "\x00\x01"}',
    "turned around": b'{"reason": "\\u202e\\u2066", "symbol": "\\uff22\\uff34\\uff23", "reduce_pct": \xd9\xa0}',
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 without a mark": TEXT.encode("utf-16-be"),
    "UTF-32": TEXT.encode("utf-32"),
    "UTF-8 with a mark": TEXT.encode("utf-8-sig"),
    "Latin-1": TEXT.encode("latin-1"),
    "half a character": TEXT.encode()[:13] + b"\xf0\x9f",
    "no encoding at all": bytes(range(256)),
    "gzip": gzip.compress(TEXT.encode()),
    "a form": b"reason=x&symbol=BTCUSDT&reduce_pct=1",
    "parts": b'--x\r\nContent-Disposition: form-data; name="reason"\r\n\r\nx\r\n--x--\r\n',
    "another prototype": b'{"__proto__": {"reason": "x"}, "__class__": "Command", "constructor": 1}',
    "other types": b'{"reason": [], "symbol": {}, "symbols": {}, "limits": [], "reduce_pct": "0.5", "side": 1}',
    "10 MB": b"[" * MEGABYTES,
}
TYPES = [
    None, "application/json", "application/json; charset=utf-16", "text/plain", "multipart/form-data", "application/xml",
    "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "/", "\xff", "application/json, text/html",
]  # fmt: skip


def headers(content_type: str | None, encoding: str | None = None) -> list[tuple[bytes, bytes]]:
    named = [("content-type", content_type), ("content-encoding", encoding), *AUTHORIZED.items()]
    return [(name.encode(), value.encode("latin-1")) for name, value in named if value is not None]


def commands(world: World) -> list[str]:
    """Every path that takes a body, the kill's first."""
    paths = [path for path, methods in world.app.openapi()["paths"].items() if "post" in methods]
    assert KILL in paths
    return sorted(paths, key=lambda path: path != KILL)


# Bodies.


@pytest.mark.parametrize("name", BODIES)
async def test_no_body_breaks_a_command(world: World, name: str) -> None:
    for path in commands(world):
        world.gateway.renew()
        response = await world.stranger.post(path, content=BODIES[name], headers=headers("application/json"))
        assert_answered(response, path)
        assert await world.state() in (["killed"] if path == KILL else ["running", "paused"]), path


def assert_answered(response: httpx.Response, path: str) -> None:
    told = response.json()
    assert response.headers["content-type"] == "application/json"
    assert response.status_code in ({200} if path == KILL else REFUSED_OR_TAKEN), (path, response.text)
    assert "action" in told or told["detail"], path


@pytest.mark.parametrize("content_type", TYPES)
async def test_no_content_type_makes_a_body_anything_but_json(world: World, content_type: str | None) -> None:
    for encoding in (None, "gzip", "nonsense"):
        for path in commands(world):
            world.gateway.renew()
            sent = headers(content_type, encoding)
            response = await world.stranger.post(path, content=b'{"reason": "told"}', headers=sent)
            assert_answered(response, path)
            if path in (KILL, "/control/pause"):
                assert response.json()["reason"] == "told"


HALF = "\ud800"


def with_half_a_pair(value: Any) -> Iterator[Any]:
    """This body, with half of a surrogate pair in place of each of its texts and names, one at a time."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield {**{other: value[other] for other in value if other != name}, HALF: inner}
            yield from ({**value, name: changed} for changed in with_half_a_pair(inner))
    elif isinstance(value, list):
        yield from ([changed, *value[1:]] for changed in with_half_a_pair(value[0]))
    yield HALF


async def test_no_text_that_no_encoding_has_breaks_a_command(world: World) -> None:
    """Wherever it stands in a body that is right else; in a limit's name and in its value it was a 500."""
    posts = {path: methods["post"] for path, methods in world.app.openapi()["paths"].items() if "post" in methods}
    for path, post in posts.items():
        for example in post["requestBody"]["content"]["application/json"]["examples"].values():
            for body in with_half_a_pair(example["value"]):
                world.gateway.renew()
                response = await world.client.post(path, content=json.dumps(body).encode())
                assert_answered(response, path)
                assert path == KILL or response.status_code in (422, 200)


async def test_a_limit_that_is_no_number_changes_none(world: World) -> None:
    before = world.gateway.carried.limits
    for value in (
        "NaN",
        "Infinity",
        "1e999999999",
        "-1",
        '""',
        '"NaN"',
        "true",
        "null",
        "[]",
        "{}",
        '"\\ud800"',
        "1" * 5000,
    ):
        body = f'{{"limits": {{"max_leverage": {value}}}}}'.encode()
        response = await world.client.post("/control/limits", content=body)
        assert response.status_code == 422, value
        json.dumps(response.json(), allow_nan=False).encode()
    assert world.gateway.carried.limits == before


# Keys.


def token(text: bytes) -> bytes:
    return b"Bearer " + text


keys = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=80).map(token),
    st.text(max_size=60).map(lambda text: token(text.encode("utf-8", "surrogatepass"))),
    st.sampled_from([b"bearer", b"BEARER\t", b"Bearer,", b"Digest", b"Negotiate", b"Bearer Bearer", b"Bearer\xa0"]).map(
        lambda scheme: scheme + b" " + KEY.encode()
    ),
    st.integers(0, len(KEY)).map(lambda at: token(KEY[:at].encode() + b"\x00" + KEY[at:].encode())),
    st.integers(0, len(KEY)).map(lambda at: token(KEY[:at].encode() + "ﬀ".encode() + KEY[at:].encode())),
    st.sampled_from(
        [KEY.swapcase(), KEY + " ", KEY + ",", f'"{KEY}"', KEY * 3000, "ais_" * 9, "ais_0000000000_", "%s%n"]
    ).map(lambda text: token(text.encode())),
)


def test_no_header_but_the_key_lets_anybody_in() -> None:
    made = World()

    async def ask(header: bytes) -> None:
        async with made.running():
            for method, path in (("POST", KILL), ("GET", "/control/status")):
                response = await made.stranger.request(method, path, headers=[(b"authorization", header)])
                assert (response.status_code, response.json()) == (401, {"detail": "Not authenticated"})
                assert response.headers["WWW-Authenticate"] == "Bearer"
            assert made.gateway.signals == []

    @settings(max_examples=40, deadline=None)
    @given(header=keys.filter(lambda header: header.strip().lower() != token(KEY.encode()).lower()))
    def check(header: bytes) -> None:
        asyncio.run(ask(header))

    check()


# Chunks, over a real socket.

CHUNKS = {
    "no number": b"zz\r\nabc\r\n0\r\n\r\n",
    "a negative one": b"-5\r\nabcde\r\n0\r\n\r\n",
    "more than there is": b"ffffffffffffffff\r\nabc\r\n",
    "more than 64 bits": b"f" * 40 + b"\r\nabc\r\n",
    "no line's end": b"5abcde0",
    "too long a chunk": b"3\r\nabcdef\r\n0\r\n\r\n",
    "an extension without an end": b"3;" + b"x" * 200_000 + b"\r\nabc\r\n0\r\n\r\n",
    "a broken trailer": b"3\r\nabc\r\n0\r\nno header at all\r\n\r\n",
    "trailers without an end": b"3\r\nabc\r\n0\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n",
    "garbage": bytes(range(256)) * 8,
    "tiny ones": b"1\r\n \r\n" * 20_000 + b"0\r\n\r\n",
    "another request": b"0\r\n\r\nGET /control/status HTTP/1.1\r\nHost: api\r\n\r\n",
}


class Desk(World):
    """A served desk."""

    port: int

    async def ask(self, path: str, body: bytes, ends: bool = False) -> Reply:
        client = await Client.connect(self.port)
        try:
            await client.send(head(path, b"Transfer-Encoding: chunked"))
            with contextlib.suppress(ConnectionError):
                await client.send(body)
            if ends:
                client.writer.write_eof()
            return await client.reply(30)
        finally:
            client.close()


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Served with times short enough to be waited for."""
    monkeypatch.setattr(body_limit, "BODY_SECONDS", 0.4)
    monkeypatch.setattr(kill_body, "BODY_SECONDS", 0.2)
    made = Desk()
    async with serving(made.app) as made.port:
        yield made


@pytest.mark.parametrize("name", CHUNKS)
async def test_chunks_that_are_none_hold_up_no_kill_and_carry_out_nothing_else(desk: Desk, name: str) -> None:
    desk.gateway.renew()
    reply = await desk.ask("/control/pause", CHUNKS[name])
    assert reply.status in REFUSED_OR_TAKEN | {400, 408}
    assert (await desk.state() == "paused") is (reply.status == 200)
    reply = await desk.ask(KILL, CHUNKS[name])
    assert (reply.status, reply.json["action"]) == (200, "killed")
    assert await desk.state() == "killed"


@pytest.mark.parametrize("body", [b"", b"5\r\nab", b"3\r\nabc\r\n"])
async def test_a_client_that_hangs_up_in_the_middle_of_its_chunks_has_killed(desk: Desk, body: bytes) -> None:
    """Its half of the connection alone: whether it still reads cannot be told."""
    desk.gateway.renew()
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        reply = await desk.ask(KILL, body, ends=True)
        assert reply.status == 200
    async with asyncio.timeout(180):
        while await desk.state() != "killed":
            await asyncio.sleep(0.02)


# A crowd, over real sockets. (`tests/e2e/test_door.py` has those who come again and again, at a real `ais api`.)

STALLED = 1_000
KNOCKERS = 20
DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
STALLS = [
    b"",
    b"\r\n",
    b"POST /control/kill-switch HTTP/1.1\r\nHost: api\r\nX-A: ",
    b"GET / HTTP/1.1\r\n",
    head(KILL, b"Content-Length: 4000", key=None) + b"{",
    head("/control/pause", b"Transfer-Encoding: chunked", key=None) + b"5\r\nab",
]


@pytest.mark.skipif(DESCRIPTORS < 4_096, reason="both ends of a thousand connections need more descriptors")
@pytest.mark.parametrize("calls", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
async def test_a_kill_answers_beside_a_thousand_who_stall_and_a_flood_without_a_key(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Below every bound nobody is reset or turned away. How long the kill takes beside them: `python -m bench.strangers`."""
    for name in ("FIRST_BYTE_SECONDS", "HEAD_SECONDS", "DRAIN_SECONDS"):
        monkeypatch.setattr(door, name, 300.0)
    stalled = [await Client.connect(desk.port) for _ in range(STALLED)]
    for number, client in enumerate(stalled):
        await client.send(STALLS[number % len(STALLS)])
    flood = [asyncio.create_task(knock(desk.port, calls // KNOCKERS)) for _ in range(KNOCKERS)]
    for _ in range(5):
        assert (await desk.ask(KILL, b"0\r\n\r\n")).status == 200
    assert sum(await asyncio.gather(*flood), Counter()) == {401: calls}
    assert (await desk.ask(KILL, b"0\r\n\r\n")).json["action"] == "killed"
    assert not [client for client in stalled if client.reader.at_eof() or client.reader.exception()]
    assert desk.app.state.parts.instruments.scrape(None).count(b"turned_away_total{") == 0
    for client in stalled:
        client.close()


async def knock(port: int, calls: int) -> Counter[int]:
    """So many calls without a key over one connection, and what they were answered."""
    client = await Client.connect(port)
    answered: Counter[int] = Counter()
    for _ in range(calls):
        await client.send(head(KILL, b"Content-Length: 0", key=None))
        answered[(await client.reply(60)).status] += 1
    client.close()
    return answered


def test_only_one_of_these_bodies_is_too_large() -> None:
    """Each is small enough to be read, but for the one that is meant to be too large."""
    too_large: list[Any] = [name for name, body in BODIES.items() if len(body) > body_limit.MAX_BODY_BYTES]
    assert too_large == ["10 MB"]
