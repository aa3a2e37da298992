"""The control endpoints, key by key."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from api.commands import refusal_of
from domain.desk.carried import Outcome, RefusalCode
from domain.desk.states import CommandKind
from domain.desk.status import CommandOutcome
from tests.api.world import NOW, World

KILLED = {"detail": "The coordinator is killed; only a manual restart brings it back."}
BTC_CANCELS = [
    {"tool": "cancel_all_orders", "symbol": "BTCUSDT"},
    {"tool": "cancel_spot_all_orders", "symbol": "BTCUSDT"},
]
ETH_CANCELS = [
    {"tool": "cancel_all_orders", "symbol": "ETHUSDT"},
    {"tool": "cancel_spot_all_orders", "symbol": "ETHUSDT"},
]


def entries(response: httpx.Response) -> list[dict[str, Any]]:
    """The list of a 422, after checking its form."""
    assert response.status_code == 422, response.text
    found: list[dict[str, Any]] = response.json()["detail"]
    assert all(set(entry) == {"loc", "msg", "type"} for entry in found)
    return found


async def test_mode_is_the_configured_one_and_needs_no_coordinator(world: World) -> None:
    world.gateway.query_error = RuntimeError("must not be asked")
    response = await world.client.get("/control/mode")
    assert (response.status_code, response.json()) == (200, {"default_mode": "paper"})


async def test_status_has_the_state_alone(world: World) -> None:
    assert (await world.client.get("/control/status")).json() == {"state": "running"}


async def test_coordinator_is_the_whole_status(world: World) -> None:
    body = (await world.client.get("/control/coordinator")).json()
    assert body["state"] == "running"
    assert body["observation"]["marks"] == {"BTCUSDT": "64000.5"}
    assert {"kill_number", "open_instructions", "commands_pending", "warnings", "run_id"} <= set(body)


async def test_pause_and_resume_change_the_state(world: World) -> None:
    paused = await world.client.post("/control/pause", json={"reason": "manual review"})
    assert (paused.status_code, paused.json()) == (200, {"action": "paused", "reason": "manual review"})
    assert await world.state() == "paused"
    resumed = await world.client.post("/control/resume")
    assert (resumed.status_code, resumed.json()) == (200, {"action": "resumed"})
    assert await world.state() == "running"


@pytest.mark.parametrize("body", [b"", b"{}", b"null"])
async def test_pause_without_a_reason_is_the_manual_one(world: World, body: bytes) -> None:
    response = await world.client.post("/control/pause", content=body)
    assert response.json() == {"action": "paused", "reason": "manual pause"}


async def test_pause_twice_is_200_twice_and_echoes_each_reason(world: World) -> None:
    await world.client.post("/control/pause", json={"reason": "one"})
    again = await world.client.post("/control/pause", json={"reason": "two"})
    assert (again.status_code, again.json()) == (200, {"action": "paused", "reason": "two"})


async def test_resume_while_running_is_200(world: World) -> None:
    response = await world.client.post("/control/resume", content=b"{}")
    assert (response.status_code, response.json()) == (200, {"action": "resumed"})


async def test_pause_and_resume_while_killed_are_409(world: World) -> None:
    await world.client.post("/control/kill-switch")
    for path in ("/control/pause", "/control/resume"):
        response = await world.client.post(path)
        assert (response.status_code, response.json()) == (409, KILLED)
        assert response.headers["X-Command-Id"]
    assert await world.state() == "killed"


async def test_cancel_all_of_null_covers_every_symbol(world: World) -> None:
    for body in (b"", b"{}", b'{"symbols": null}'):
        response = await world.client.post("/control/cancel-all", content=body)
        assert response.json() == {
            "action": "cancel_all_prepared",
            "symbols": ["BTCUSDT", "ETHUSDT"],
            "cancel_instructions": BTC_CANCELS + ETH_CANCELS,
        }


async def test_cancel_all_reads_symbols_as_people_write_them(world: World) -> None:
    response = await world.client.post("/control/cancel-all", json={"symbols": ["eth/usdt", "ETH-USDT", "eth usdt"]})
    assert response.json() == {
        "action": "cancel_all_prepared",
        "symbols": ["ETHUSDT"],
        "cancel_instructions": ETH_CANCELS,
    }


async def test_cancel_all_of_null_covers_symbols_that_are_held_besides(world: World) -> None:
    world.gateway.carried.seen_symbols = ["SOLUSDT"]
    response = await world.client.post("/control/cancel-all")
    assert response.json()["symbols"] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]


async def test_cancel_all_of_a_strange_symbol_is_422_naming_it_and_the_allowed_ones(world: World) -> None:
    response = await world.client.post("/control/cancel-all", json={"symbols": ["DOGEUSDT"]})
    (entry,) = entries(response)
    assert entry["loc"] == ["body", "symbols"]
    assert "DOGEUSDT" in entry["msg"]
    assert "BTCUSDT, ETHUSDT" in entry["msg"]


@pytest.mark.parametrize(
    ("path", "body", "location"),
    [
        ("pause", b'{"reason": ""}', ["body", "reason"]),
        ("pause", b'{"reasn": "x"}', ["body", "reasn"]),
        ("cancel-all", b'{"symbols": [1]}', ["body", "symbols", 0]),
        ("resume", b"[]", ["body"]),
    ],
)
async def test_an_error_in_a_body_that_may_be_left_out_is_one_and_at_its_place(
    world: World, path: str, body: bytes, location: list[str | int]
) -> None:
    response = await world.client.post(f"/control/{path}", content=body)
    assert [entry["loc"] for entry in entries(response)] == [location]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("cancel-all", b'{"symbols": []}'),
        ("cancel-all", b'{"symbols": "BTCUSDT"}'),
        ("cancel-all", b'{"symbols": [1]}'),
        ("cancel-all", b'{"symbols": ["?"]}'),
        ("cancel-all", b'{"symbols": ["\\ud800"]}'),
        ("cancel-all", b'{"symbol": ["BTCUSDT"]}'),
        ("cancel-all", b'{"symbols": ["BTCUSDT"], "symbols": null}'),
        ("cancel-all", b'["BTCUSDT"]'),
        ("cancel-all", b"{"),
        ("cancel-all", b"\xff\xfe"),
        ("cancel-all", b"[" * 60_000),
        ("cancel-all", b"9" * 10_000),
        ("resume", b'{"reason": "x"}'),
        ("resume", b'{"\\ud800": 1}'),
        ("resume", b"[]"),
        ("pause", b'{"reason": ""}'),
        ("pause", b'{"reason": "   "}'),
        ("pause", b'{"reason": 5}'),
        ("pause", b'{"reason": "%s"}' % (b"x" * 501)),
        ("pause", b'{"reason": "\\ud800"}'),
        ("pause", b'{"reasn": "x"}'),
        ("deleverage", b""),
        ("deleverage", b"null"),
        ("deleverage", b"{}"),
        ("deleverage", b'{"symbol": "BTCUSDT"}'),
        ("deleverage", b'{"reduce_pct": 0.5}'),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": 0}'),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": -0.5}'),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": 1.0000001}'),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": true}'),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": "0.5"}'),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": null}'),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": NaN}'),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": Infinity}'),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": 1e-999}'),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": %s}' % (b"9" * 400)),
        ("deleverage", b'{"symbol": "BTCUSDT", "reduce_pct": 0.5, "side": "SELL"}'),
        ("deleverage", b'{"symbol": "BTC\\u0000USDT", "reduce_pct": 0.5}'),
    ],
)
async def test_an_invalid_body_is_422_and_nothing_is_sent(world: World, path: str, body: bytes) -> None:
    assert entries(await world.client.post(f"/control/{path}", content=body))
    assert world.gateway.signals == []


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "nonsense", ""])
async def test_json_is_read_whatever_its_content_type(world: World, content_type: str) -> None:
    response = await world.client.post(
        "/control/pause", content=b'{"reason": "curl -d"}', headers={"Content-Type": content_type}
    )
    assert response.json() == {"action": "paused", "reason": "curl -d"}


async def test_deleverage_answers_the_order_that_was_sent(world: World) -> None:
    response = await world.client.post("/control/deleverage", json={"symbol": "btc-usdt", "reduce_pct": 0.5})
    assert response.status_code == 200
    assert response.json() == {
        "action": "deleverage_prepared",
        "symbol": "BTCUSDT",
        "reduce_pct": 0.5,
        "instruction": {
            "tool": "create_order",
            "symbol": "BTCUSDT",
            "side": "SELL",
            "order_type": "MARKET",
            "quantity": 0.125,
            "reduce_only": True,
        },
    }


async def test_a_deleverage_that_was_filled_in_part_says_so(world: World) -> None:
    """Found: over HTTP it was told as if it were complete, with the whole quantity."""
    world.gateway.shortfall = "0.05 of 0.125 was filled: the book was empty"
    response = await world.client.post("/control/deleverage", json={"symbol": "BTCUSDT", "reduce_pct": 0.5})
    assert (response.status_code, response.json()["detail"]) == (200, world.gateway.shortfall)
    found = await world.client.get(f"/control/commands/{response.headers['X-Command-Id']}")
    assert (found.json()["outcome"], found.json()["detail"]) == ("applied", world.gateway.shortfall)


async def test_two_deleverages_of_a_half_leave_a_quarter(world: World) -> None:
    for _ in range(2):
        await world.client.post("/control/deleverage", json={"symbol": "BTCUSDT", "reduce_pct": 0.5})
    assert world.gateway.held == Decimal("0.0625")


async def test_deleverage_without_a_position_is_409(world: World) -> None:
    world.gateway.held = Decimal(0)
    response = await world.client.post("/control/deleverage", json={"symbol": "BTCUSDT", "reduce_pct": 1})
    assert (response.status_code, response.json()) == (409, {"detail": "There is no open position in BTCUSDT."})


async def test_deleverage_of_a_strange_symbol_is_422(world: World) -> None:
    response = await world.client.post("/control/deleverage", json={"symbol": "DOGEUSDT", "reduce_pct": 1})
    assert entries(response)[0]["loc"] == ["body", "symbol"]


async def test_cancel_all_and_deleverage_work_while_killed(world: World) -> None:
    await world.client.post("/control/kill-switch")
    assert (await world.client.post("/control/cancel-all")).status_code == 200
    body = {"symbol": "BTCUSDT", "reduce_pct": 0.3}
    assert (await world.client.post("/control/deleverage", json=body)).status_code == 200


async def test_the_idempotency_key_becomes_the_command_id(world: World) -> None:
    response = await world.client.post("/control/pause", headers={"Idempotency-Key": "my key/1?"})
    assert response.headers["X-Command-Id"] == "my key/1?"
    assert world.gateway.signals[0][1]["command_id"] == "my key/1?"
    found = await world.client.get("/control/commands/my%20key%2F1%3F")
    assert found.json()["outcome"] == "applied"


async def test_the_same_key_and_body_gives_the_recorded_answer_and_does_nothing_twice(world: World) -> None:
    body, key = {"symbol": "BTCUSDT", "reduce_pct": 0.5}, {"Idempotency-Key": "k1"}
    first = await world.client.post("/control/deleverage", json=body, headers=key)
    second = await world.client.post("/control/deleverage", json=body, headers=key)
    assert (first.status_code, first.json()) == (second.status_code, second.json())
    assert world.gateway.held == Decimal("0.125")


async def test_the_same_key_gives_the_recorded_refusal(world: World) -> None:
    await world.client.post("/control/kill-switch")
    for _ in range(2):
        response = await world.client.post("/control/resume", headers={"Idempotency-Key": "k2"})
        assert (response.status_code, response.json()) == (409, KILLED)


async def test_the_same_key_for_another_command_is_422(world: World) -> None:
    await world.client.post("/control/pause", headers={"Idempotency-Key": "k3"})
    response = await world.client.post("/control/resume", headers={"Idempotency-Key": "k3"})
    assert entries(response)[0]["loc"] == ["header", "Idempotency-Key"]
    assert await world.state() == "paused"


@pytest.mark.parametrize("key", [b"", b"   ", b"x" * 129, b"a\tb", "ä".encode(), b"\xff"])
async def test_a_key_that_is_empty_too_long_or_not_ascii_is_422(world: World, key: bytes) -> None:
    response = await world.client.post("/control/pause", headers=[(b"idempotency-key", key)])
    assert entries(response)[0]["loc"] == ["header", "Idempotency-Key"]
    assert world.gateway.signals == []


async def test_every_command_answer_carries_an_id(world: World) -> None:
    for path in ("pause", "resume", "cancel-all", "deleverage", "kill-switch"):
        assert (await world.client.post(f"/control/{path}")).headers["X-Command-Id"]


async def test_commands_tells_what_became_of_each(world: World) -> None:
    pause = {"Idempotency-Key": "p"}
    await world.client.post("/control/pause", json={"reason": "why"}, headers=pause)
    await world.client.post(
        "/control/deleverage", json={"symbol": "BTCUSDT", "reduce_pct": 0.5}, headers={"Idempotency-Key": "d"}
    )
    await world.client.post("/control/kill-switch", headers={"Idempotency-Key": "k"})
    await world.client.post("/control/resume", headers={"Idempotency-Key": "r"})

    async def get(command_id: str) -> Any:
        return (await world.client.get(f"/control/commands/{command_id}")).json()

    head = {"command_id": "p", "command": "pause", "outcome": "applied"}
    assert await get("p") == {**head, "action": "paused", "reason": "why"}
    assert (await get("d"))["reduce_pct"] == 0.5
    assert (await get("d"))["instruction"]["quantity"] == 0.125
    assert (await get("k"))["cancel_instructions"] == BTC_CANCELS + ETH_CANCELS
    assert await get("r") == {"command_id": "r", "command": "resume", "outcome": "refused", **KILLED}


async def test_an_unknown_command_id_is_404(world: World) -> None:
    response = await world.client.get("/control/commands/nope")
    assert response.status_code == 404
    assert set(response.json()) == {"detail"}


async def test_unknown_paths_and_methods_are_json(world: World) -> None:
    missing = await world.client.get("/control/nothing")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
    wrong = await world.client.get("/control/pause")
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})


async def test_a_bug_is_500_and_leaks_nothing(world: World) -> None:
    world.gateway.query_error = ValueError("the secret of the desk")
    response = await world.client.get("/control/status")
    assert (response.status_code, response.json()) == (500, {"detail": "Internal Server Error"})
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_commands_from_many_clients_each_get_their_own_answer(world: World) -> None:
    async def pause(number: int) -> bool:
        response = await world.client.post("/control/pause", json={"reason": f"r{number}"})
        return bool(response.json() == {"action": "paused", "reason": f"r{number}"})

    assert all(await asyncio.gather(*(pause(number) for number in range(30))))


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (None, 409),
        (RefusalCode.CONFLICT, 409),
        (RefusalCode.EXPIRED, 409),
        (RefusalCode.INVALID, 422),
        (RefusalCode.BUSY, 503),
    ],
)
def test_each_recorded_refusal_has_its_status(code: RefusalCode | None, status: int) -> None:
    outcome = CommandOutcome(
        command_id="c", command=CommandKind.DELEVERAGE, outcome=Outcome.REFUSED, at=NOW, actor="http", reason="",
        detail="why", code=code, fingerprint="f",
    )  # fmt: skip
    assert refusal_of(CommandKind.DELEVERAGE, outcome).status == status


async def test_a_command_that_is_too_old_for_the_coordinator_is_409(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.desk.applying.MAX_COMMAND_AGE", timedelta(seconds=-1))
    response = await world.client.post("/control/pause")
    assert response.status_code == 409
    assert "24 h" in response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("cancel-all?symbols=BTCUSDT", None),
        ("cancel-all?symbols", {"symbols": ["BTCUSDT"]}),
        ("pause?reason=lunch", None),
        ("resume?x=%00", None),
        ("deleverage?reduce_pct=0.1", {"symbol": "BTCUSDT", "reduce_pct": 1}),
        ("limits?reason=x", {"limits": {"max_leverage": 1}}),
    ],
)
async def test_a_query_widens_no_command(world: World, path: str, body: dict[str, Any] | None) -> None:
    # Found: it was ignored, and `cancel-all?symbols=BTCUSDT` canceled the orders of every symbol.
    response = await world.client.post(f"/control/{path}", json=body)
    assert response.status_code == 422
    (found,) = response.json()["detail"]
    assert (found["loc"][0], found["type"]) == ("query", "extra_forbidden")
    assert world.gateway.signals == []


async def test_a_kill_with_a_query_kills_and_says_that_it_was_ignored(world: World) -> None:
    response = await world.client.post("/control/kill-switch?reason=flash%20crash")
    assert (response.status_code, response.json()["reason"]) == (200, "manual kill switch")
    assert "query parameters were ignored" in response.headers["X-AIS-Warning"]
