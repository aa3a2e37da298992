"""401 before anything, and size limits before the body is read."""

from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.keys import Holder, KeyRing
from tests.api.world import KEY, World

PROTECTED = [
    ("GET", "/control/mode"),
    ("GET", "/control/status"),
    ("GET", "/control/coordinator"),
    ("GET", "/control/commands/x"),
    ("GET", "/control/nothing"),
    ("GET", "/control"),
    ("POST", "/control/pause"),
    ("POST", "/control/resume"),
    ("POST", "/control/kill-switch"),
    ("POST", "/control/cancel-all"),
    ("POST", "/control/deleverage"),
    ("OPTIONS", "/control/kill-switch"),
    ("GET", "/reports/decisions"),
    ("GET", "/reports/decisions?limit=nonsense"),
]
BAD_HEADERS = [
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer wrong",
    b"Basic " + KEY.encode(),
    KEY.encode(),
    b"Bearer  " + KEY.encode(),
    b"Bearer " + KEY.encode() + b"x",
    b"Bearer " + KEY[:-1].encode(),
    "Bearer schlüssel-ß".encode(),
    b"Bearer \xff\xfe\x00",
]


def assert_unauthenticated(response: httpx.Response) -> None:
    assert response.status_code == 401
    assert response.json() == {"detail": "Not authenticated"}
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_everything_under_control_and_reports_asks_for_the_key(world: World, method: str, path: str) -> None:
    assert_unauthenticated(await world.stranger.request(method, path))


@pytest.mark.parametrize("header", BAD_HEADERS)
async def test_a_token_that_is_malformed_wrong_or_not_ascii_is_401(world: World, header: bytes) -> None:
    assert_unauthenticated(await world.stranger.get("/control/status", headers=[(b"authorization", header)]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=st.binary(max_size=60))
def test_no_token_but_the_key_is_let_in(token: bytes) -> None:
    found = KeyRing(KEY, "main").check(token)
    assert isinstance(found, Holder) is (token == KEY.encode())


async def test_two_authorization_headers_are_401(world: World) -> None:
    twice = [("authorization", f"Bearer {KEY}"), ("authorization", "Bearer other")]
    assert_unauthenticated(await world.stranger.get("/control/status", headers=twice))


async def test_an_unauthenticated_broken_body_is_401_and_not_422(world: World) -> None:
    assert_unauthenticated(await world.stranger.post("/control/cancel-all", content=b"{"))


async def test_an_unauthenticated_body_is_never_read(world: World) -> None:
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"x" * 100_000

    assert_unauthenticated(await world.stranger.post("/control/pause", content=body()))
    assert not read


async def test_an_unauthenticated_kill_does_not_kill(world: World) -> None:
    assert_unauthenticated(await world.stranger.post("/control/kill-switch"))
    assert world.gateway.signals == []


async def test_the_scheme_is_read_in_any_case(world: World) -> None:
    response = await world.stranger.get("/control/mode", headers={"Authorization": f"bearer {KEY}"})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health", "/metrics", "/docs", "/redoc", "/openapi.json"])
async def test_public_paths_need_no_key(world: World, path: str) -> None:
    assert (await world.stranger.get(path)).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_64_kib_is_413_announced_or_chunked(world: World, chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b" " * 1024

    content = chunks() if chunked else b" " * 65 * 1024
    response = await world.client.post("/control/pause", content=content)
    assert response.status_code == 413
    assert response.json() == {"detail": "The body is larger than 64 KiB."}
    assert world.gateway.signals == []


async def test_a_body_of_64_kib_is_read(world: World) -> None:
    body = b"{}".ljust(64 * 1024)
    assert (await world.client.post("/control/pause", content=body)).status_code == 200


async def test_authentication_comes_before_the_size_limit(world: World) -> None:
    assert_unauthenticated(await world.stranger.post("/control/pause", content=b" " * 70_000))


async def test_every_answer_carries_security_headers(world: World) -> None:
    for response in [
        await world.stranger.get("/health/live"),
        await world.stranger.get("/control/status"),
        await world.stranger.get("/nothing"),
        await world.client.post("/control/pause", content=b" " * 70_000),
        await world.client.post("/control/kill-switch"),
    ]:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]


async def test_cors_is_closed_unless_an_origin_is_named(world: World) -> None:
    asked = {"Origin": "https://desk.example.com", "Access-Control-Request-Method": "POST"}
    response = await world.stranger.options("/control/pause", headers=asked)
    assert "access-control-allow-origin" not in response.headers
    async with World(cors_origins=("https://desk.example.com",)).running() as opened:
        response = await opened.stranger.options("/control/pause", headers=asked)
        assert response.headers["access-control-allow-origin"] == "https://desk.example.com"
        response = await opened.stranger.options("/control/pause", headers={**asked, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in response.headers


async def test_a_page_of_a_named_origin_may_go_on_with_a_stream_that_broke_off() -> None:
    """Found: a browser asks first whether it may send `Last-Event-ID`, was told no, and no page had its stream again."""
    origin = {"Origin": "https://desk.example.com"}
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization,last-event-id"}
    async with World(cors_origins=("https://desk.example.com",)).running() as opened:
        response = await opened.stranger.options("/control/events", headers=origin | asked)
        assert response.status_code == 200, response.text
        exposed = (await opened.client.get("/control/status", headers=origin)).headers["access-control-expose-headers"]
    assert {"X-AIS-Role", "X-AIS-Workflow", "X-AIS-Temporal-Address", "WWW-Authenticate"} <= set(exposed.split(", "))
