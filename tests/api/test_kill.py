"""An authenticated kill kills, whatever comes with it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.kill_body import parse_kill_body
from tests.api.test_control import BTC_CANCELS, ETH_CANCELS, entries
from tests.api.world import World

PATH = "/control/kill-switch"


async def test_a_kill_answers_exactly_these_keys(world: World) -> None:
    response = await world.client.post(PATH, json={"reason": "drawdown exceeded manual threshold"})
    assert response.status_code == 200
    assert response.json() == {
        "action": "killed",
        "reason": "drawdown exceeded manual threshold",
        "cancel_instructions": BTC_CANCELS + ETH_CANCELS,
    }
    assert "X-AIS-Warning" not in response.headers
    assert await world.state() == "killed"


async def test_the_signal_names_http_and_when_it_was_sent(world: World) -> None:
    await world.client.post(PATH, json={"reason": "why"})
    ((name, payload),) = world.gateway.signals
    assert name == "kill"
    assert set(payload) == {"command_id", "reason", "actor", "sent_at"}
    assert (payload["reason"], payload["actor"]) == ("why", "http")


async def test_only_a_kill_asks_for_its_outcome_before_all_others(world: World) -> None:
    await world.client.post("/control/pause")
    assert (world.gateway.queries > 0, world.gateway.urgent_queries) == (True, 0)
    await world.client.post(PATH)
    assert world.gateway.urgent_queries == 1


async def test_kill_while_killed_prepares_the_cancels_again_and_echoes_its_own_reason(world: World) -> None:
    await world.client.post(PATH, json={"reason": "first"})
    response = await world.client.post(PATH, json={"reason": "second"})
    assert (response.status_code, response.json()["reason"]) == (200, "second")
    assert response.json()["cancel_instructions"] == BTC_CANCELS + ETH_CANCELS
    assert len(world.gateway.carried.cancels) == 8
    assert (await world.client.get("/control/coordinator")).json()["kill"]["reason"] == "first"


async def test_a_kill_covers_what_is_held_besides_the_whitelist(world: World) -> None:
    world.gateway.carried.seen_symbols = ["SOLUSDT"]
    response = await world.client.post(PATH)
    assert [i["symbol"] for i in response.json()["cancel_instructions"]][-2:] == ["SOLUSDT", "SOLUSDT"]


WARNED = [
    (b"{", "not JSON"),
    (b"\xff\xfe\xfa", "not JSON"),
    (b"flash crash", "not JSON"),
    (b"[" * 60_000, "not JSON"),
    (b"[1, 2]", "not a JSON object"),
    (b"17", "not a JSON object"),
    (b'{"reason": 5}', "not a string"),
    (b'{"reason": "  "}', "blank"),
    (b'{"reasn": "x"}', "unknown field 'reasn'"),
    (b'{"\\ud800\\n": "x"}', "unknown field"),
    (b"x" * 70_000, "larger than 64 KiB"),
]


@pytest.mark.parametrize(("body", "warning"), WARNED)
async def test_a_body_that_cannot_be_read_kills_and_is_named(world: World, body: bytes, warning: str) -> None:
    response = await world.client.post(PATH, content=body)
    assert (response.status_code, response.json()["reason"]) == (200, "manual kill switch")
    assert warning in response.headers["X-AIS-Warning"]
    assert await world.state() == "killed"


@pytest.mark.parametrize("body", [b"", b"   ", b"{}", b"null", b'{"reason": null}'])
async def test_a_body_without_a_reason_is_the_manual_kill_and_no_warning(world: World, body: bytes) -> None:
    response = await world.client.post(PATH, content=body)
    assert response.json()["reason"] == "manual kill switch"
    assert "X-AIS-Warning" not in response.headers


async def test_a_bare_string_is_the_reason(world: World) -> None:
    assert (await world.client.post(PATH, content=b'"flash crash"')).json()["reason"] == "flash crash"


async def test_a_long_reason_is_cut_to_500_characters(world: World) -> None:
    response = await world.client.post(PATH, json={"reason": "ä" * 900})
    assert response.json()["reason"] == "ä" * 500
    assert "500" in response.headers["X-AIS-Warning"]


async def test_what_can_be_read_beside_an_unknown_field_is_the_reason(world: World) -> None:
    response = await world.client.post(PATH, json={"reason": "why", "symbols": ["BTCUSDT"]})
    assert response.json()["reason"] == "why"
    assert "symbols" in response.headers["X-AIS-Warning"]


async def test_a_body_that_never_arrives_does_not_hold_up_the_kill(world: World) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b'{"reason": '
        await asyncio.sleep(30)

    response = await asyncio.wait_for(world.client.post(PATH, content=stuck()), 3)
    assert (response.status_code, await world.state()) == (200, "killed")
    assert "did not arrive" in response.headers["X-AIS-Warning"]


async def test_a_client_that_goes_away_in_the_middle_has_killed(world: World) -> None:
    from tests.api.world import AUTHORIZED

    headers = [(name.lower().encode(), value.encode()) for name, value in AUTHORIZED.items()]
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    incoming = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        pass

    await world.app(scope, receive, send)
    assert await world.state() == "killed"


@pytest.mark.parametrize("key", [b"", b"x" * 129, b"\xff"])
async def test_a_bad_idempotency_key_is_a_warning_and_a_fresh_id(world: World, key: bytes) -> None:
    response = await world.client.post(PATH, headers=[(b"idempotency-key", key)])
    assert response.status_code == 200
    assert "fresh id" in response.headers["X-AIS-Warning"]
    assert len(response.headers["X-Command-Id"]) == 32


async def test_a_key_that_another_command_used_kills_all_the_same(world: World) -> None:
    key = {"Idempotency-Key": "used"}
    await world.client.post("/control/pause", headers=key)
    response = await world.client.post(PATH, headers=key)
    assert (response.status_code, await world.state()) == (200, "killed")
    assert "used for another command" in response.headers["X-AIS-Warning"]


async def test_the_same_kill_again_under_its_key_prepares_nothing_twice(world: World) -> None:
    answers = [await world.client.post(PATH, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(world.gateway.carried.cancels) == 4


async def test_another_kill_under_a_used_key_while_killed_is_422(world: World) -> None:
    key = {"Idempotency-Key": "once"}
    await world.client.post(PATH, headers=key, json={"reason": "a"})
    assert entries(await world.client.post(PATH, headers=key, json={"reason": "b"}))
    assert await world.state() == "killed"


@given(body=st.one_of(st.binary(max_size=300), st.text().map(lambda text: json.dumps({"reason": text}).encode())))
async def test_any_body_gives_a_reason_that_can_be_sent_and_answered(body: bytes) -> None:
    found = parse_kill_body(body)
    assert 1 <= len(found.reason) <= 500
    found.reason.encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)  # fmt: skip
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["reason", "x"]), json_values).map(lambda value: json.dumps(value).encode()),
    st.characters(categories=["Cs"]).map(lambda c: json.dumps({"reason": c, c: c}).encode()),
)
content_types = st.one_of(
    st.sampled_from(["application/json", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"]),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30),
)


def test_any_bytes_of_any_content_type_kill() -> None:
    made = World()

    async def kill_each(body: bytes, content_type: str) -> None:
        async with made.running():
            response = await made.client.post(PATH, content=body, headers={"Content-Type": content_type})
            assert response.status_code == 200, response.text
            assert set(response.json()) == {"action", "reason", "cancel_instructions"}
            assert await made.state() == "killed"

    @given(body=bodies, content_type=content_types)
    def check(body: bytes, content_type: str) -> None:
        asyncio.run(kill_each(body, content_type))

    check()
