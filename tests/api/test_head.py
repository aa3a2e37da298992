"""HEAD on the public paths: load balancers and `wget --spider` ask that way."""

from typing import Any

import pytest

from tests.api.serving import Client, head, serving
from tests.api.world import World
from workflows.gateway import TemporalUnreachable

PAGES = ["/docs", "/docs/start.js", "/docs/swagger-ui.css", "/docs/favicon.png", "/redoc", "/manual/risk.md"]
PUBLIC = ["/health", "/health/live", "/metrics", "/openapi.json", *PAGES]
# Of this one answer alone; the metrics have counted one request more.
OF_ITS_OWN = {"x-request-id", "date", "x-ais-time"}


def test_no_public_path_is_left_out(world: World) -> None:
    named = {
        path
        for path, found in world.app.openapi()["paths"].items()
        if "security" not in found.get("get", {"security": 1})
    }
    assert named <= set(PUBLIC)


@pytest.mark.parametrize("path", PUBLIC)
async def test_head_answers_as_get_without_the_body(world: World, path: str) -> None:
    there, seen = await world.stranger.get(path), await world.stranger.head(path)
    assert (seen.status_code, seen.content) == (200, b"")
    assert compared(seen.headers, path) == compared(there.headers, path)


def compared(headers: Any, path: str) -> dict[str, str]:
    left_out = OF_ITS_OWN | ({"content-length"} if path == "/metrics" else set())
    assert "content-length" in headers
    return {name: value for name, value in headers.items() if name not in left_out}


async def test_head_tells_what_get_would(world: World) -> None:
    world.gateway.query_error = world.gateway.open_error = TemporalUnreachable("gone")
    assert (await world.stranger.head("/health")).status_code == 503
    assert (await world.stranger.head("/nothing")).status_code == 404


@pytest.mark.parametrize("path", ["/control/status", "/control/kill-switch", "/reports/decisions", "/proposals"])
async def test_head_stays_what_it_was_where_a_key_is_needed(world: World, path: str) -> None:
    assert (await world.stranger.head(path)).status_code == 401
    assert (await world.client.head(path)).status_code == 405
    assert world.gateway.signals == []


async def test_a_connection_goes_on_after_a_head(world: World) -> None:
    """Over a real socket: the length that is announced is not waited for, and the next answer begins where this one ends."""
    async with serving(world.app) as port:
        client = await Client.connect(port)
        for path in ("/health/live", "/docs"):
            await client.send(head(path, method="HEAD", key=None))
            answered = await client.reader.readuntil(b"\r\n\r\n")
            assert answered.startswith(b"HTTP/1.1 200 ")
            assert b"content-length: 0" not in answered.lower()
        await client.send(head("/health/live", method="GET", key=None))
        assert (await client.reply()).json == {"status": "alive"}
        client.close()


async def test_head_is_counted_and_logged_as_what_it_is(new_world: World) -> None:
    await new_world.stranger.head("/health/live")
    text = (await new_world.stranger.get("/metrics")).text
    assert 'ais_http_requests_total{method="HEAD",route="/health/live",status="200"} 1.0' in text
