"""Accepted, confirmed or unknown: the table of http.md, row by row."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from api.coordinator import MAX_UNCONFIRMED, MAX_UNWRITTEN
from domain.desk.carried import Outcome
from tests.api.test_control import BTC_CANCELS, ETH_CANCELS
from tests.api.world import ACK_SECONDS, World
from workflows.gateway import (
    CoordinatorPaused,
    CoordinatorSilent,
    GatewayError,
    NoCoordinator,
    RefusedInTheEnd,
    SignalRefused,
    SignalUnanswered,
    TemporalUnreachable,
)

CANCELS = BTC_CANCELS + ETH_CANCELS
COMMANDS: list[tuple[str, Any]] = [
    ("pause", {}),
    ("resume", {}),
    ("cancel-all", {}),
    ("deleverage", {"symbol": "BTCUSDT", "reduce_pct": 0.5}),
]
QUERIES = ["status", "coordinator", "commands/x"]
NEVER_STARTED = NoCoordinator("main", None)
TERMINATED = NoCoordinator("main", "TERMINATED")


async def send(world: World, path: str, body: Any = None) -> httpx.Response:
    return await world.client.post(f"/control/{path}", json=body)


async def test_a_kill_without_a_worker_is_202_with_the_instructions_to_act_on(world: World) -> None:
    world.gateway.no_worker = True
    async with asyncio.timeout(180):
        response = await send(world, "kill-switch", {"reason": "why"})
    assert response.status_code == 202
    assert response.json() == {"action": "kill_accepted", "reason": "why", "cancel_instructions": CANCELS}
    command_id = response.headers["X-Command-Id"]
    assert response.headers["Location"] == f"/control/commands/{command_id}"
    assert int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(("path", "body"), COMMANDS)
async def test_a_command_without_a_worker_is_202(world: World, path: str, body: Any) -> None:
    world.gateway.no_worker = True
    response = await send(world, path, body)
    assert response.status_code == 202
    assert response.json() == {"action": f"{path.replace('-', '_')}_accepted"}
    assert {"X-Command-Id", "Location", "Retry-After"} <= {name.title() for name in response.headers} | {"X-Command-Id"}


async def test_a_location_is_percent_encoded_and_leads_to_the_command(world: World) -> None:
    world.gateway.no_worker = True
    response = await world.client.post("/control/pause", headers={"Idempotency-Key": "a/b ?#%"})
    world.gateway.no_worker = False
    found = await world.client.get(response.headers["Location"])
    assert found.json()["command_id"] == "a/b ?#%"


async def test_a_command_that_stays_pending_is_202_and_is_asked_for_again(world: World) -> None:
    world.gateway.leaves_deleverages = True
    response = await send(world, "deleverage", {"symbol": "BTCUSDT", "reduce_pct": 0.5})
    assert (response.status_code, response.json()) == (202, {"action": "deleverage_accepted"})
    assert world.gateway.queries > 2
    body = (await world.client.get(response.headers["Location"])).json()
    assert (body["outcome"], body["action"]) == ("pending", "deleverage_accepted")


@pytest.mark.parametrize("error", [CoordinatorSilent("no worker"), TemporalUnreachable("gone"), ValueError("a bug")])
async def test_what_goes_wrong_after_the_record_is_202_and_never_an_error(world: World, error: Exception) -> None:
    world.gateway.query_error = error
    response = await send(world, "kill-switch")
    assert response.status_code == 202
    assert world.gateway.carried.state == "killed"


@pytest.mark.parametrize(
    "error", [NEVER_STARTED, TERMINATED, TemporalUnreachable("Temporal cannot be reached: refused")]
)
async def test_a_kill_that_was_not_sent_is_503_not_recorded_and_why(world: World, error: GatewayError) -> None:
    world.gateway.signal_error = error
    response = await send(world, "kill-switch")
    assert response.status_code == 503
    assert response.json() == {"detail": f"not recorded: {error}", "cancel_instructions": CANCELS}
    assert response.headers["X-Command-Id"]


async def test_what_could_not_be_read_is_named_whatever_becomes_of_the_kill(world: World) -> None:
    world.gateway.signal_error = NEVER_STARTED
    response = await world.client.post("/control/kill-switch", content=b"{")
    assert (response.status_code, "not JSON" in response.headers["X-AIS-Warning"]) == (503, True)


@pytest.mark.parametrize(("path", "body"), COMMANDS)
async def test_a_command_that_was_not_sent_is_503(world: World, path: str, body: Any) -> None:
    for error in (NEVER_STARTED, TemporalUnreachable("gone"), SignalRefused("too many signals")):
        world.gateway.signal_error = error
        response = await send(world, path, body)
        assert (response.status_code, response.json()) == (503, {"detail": f"not recorded: {error}"})


@pytest.mark.parametrize(("path", "body"), [("kill-switch", {}), *COMMANDS])
async def test_a_signal_without_an_answer_is_503_unknown_and_how_to_repeat_it(
    world: World, path: str, body: Any
) -> None:
    world.gateway.signal_error = SignalUnanswered("no answer")
    response = await send(world, path, body)
    assert response.status_code == 503
    command_id = response.headers["X-Command-Id"]
    assert response.json()["detail"] == (
        "it is not known whether this was recorded; it may still take effect; "
        f"repeat it with Idempotency-Key: {command_id}"
    )
    assert response.json().get("cancel_instructions") == (CANCELS if path == "kill-switch" else None)


async def test_a_refused_kill_signal_becomes_a_cancellation_and_is_followed_by_its_id(world: World) -> None:
    world.gateway.signal_error = SignalRefused("exceeded workflow execution limit for signal events")
    world.gateway.carried.seen_symbols = ["SOLUSDT"]
    response = await send(world, "kill-switch", {"reason": "why"})
    assert response.status_code == 200
    assert response.json()["action"] == "killed"
    assert response.json()["cancel_instructions"][-1]["symbol"] == "SOLUSDT"
    (reason,) = map(json.loads, world.gateway.cancels)
    assert (reason["command_id"], reason["reason"]) == (response.headers["X-Command-Id"], "why")
    record = world.gateway.carried.commands[reason["command_id"]]
    assert (record.reason, record.actor, record.outcome) == ("why", "http", "applied")
    assert "cancellation" in response.headers["X-AIS-Warning"]


async def test_a_cancellation_that_nobody_confirms_is_202(world: World) -> None:
    world.gateway.signal_error, world.gateway.no_worker = SignalRefused("full"), True
    response = await send(world, "kill-switch")
    assert (response.status_code, response.json()["action"]) == (202, "kill_accepted")
    assert response.headers["Location"].endswith(response.headers["X-Command-Id"])


@pytest.mark.parametrize(
    ("standing", "location"),
    [('{"command_id": "first", "reason": "r"}', "/control/commands/first"), ("by hand", None)],
)
async def test_a_second_cancellation_of_a_run_is_followed_by_the_id_of_the_first(
    world: World, standing: str, location: str | None
) -> None:
    world.gateway.signal_error, world.gateway.no_worker = SignalRefused("full"), True
    world.gateway.standing = standing
    response = await send(world, "kill-switch")
    assert (response.status_code, response.headers.get("Location")) == (202, location)
    assert "an earlier cancellation request" in response.headers["X-AIS-Warning"]


@pytest.mark.parametrize(
    ("error", "words"), [(SignalRefused("no"), "not recorded"), (SignalUnanswered("?"), "it is not known")]
)
async def test_a_cancellation_that_fails_too_is_503(world: World, error: GatewayError, words: str) -> None:
    world.gateway.signal_error, world.gateway.cancel_error = SignalRefused("full"), error
    response = await send(world, "kill-switch")
    assert response.status_code == 503
    assert response.json()["detail"].startswith(words)
    assert response.json()["cancel_instructions"] == CANCELS


async def test_a_kill_that_was_refused_after_a_try_without_an_answer_becomes_a_cancellation_too(world: World) -> None:
    world.gateway.signal_error = RefusedInTheEnd("full, after an attempt without an answer")
    response = await send(world, "kill-switch", {"reason": "why"})
    assert (response.status_code, len(world.gateway.cancels)) == (200, 1)
    world.gateway.cancel_error = NEVER_STARTED
    response = await send(world, "kill-switch")
    assert (response.status_code, response.json()["cancel_instructions"]) == (503, CANCELS)
    assert response.json()["detail"].startswith("it is not known")
    response = await send(world, "pause")
    assert response.status_code == 503
    assert response.json()["detail"].startswith("it is not known")


async def test_a_kill_of_a_coordinator_that_is_paused_in_temporal_says_that_it_waits_for_that(world: World) -> None:
    """202 says that it takes effect, and by itself it never would."""
    world.gateway.query_error = CoordinatorPaused("main")
    response = await send(world, "kill-switch")
    assert (response.status_code, response.json()["action"]) == (202, "kill_accepted")
    assert "temporal workflow unpause --workflow-id coordinator-main" in response.headers["X-AIS-Warning"]


async def test_such_a_kill_says_so_as_a_cancellation_too(world: World) -> None:
    """A paused coordinator ends no run, so that sooner or later its run takes no more signals."""
    world.gateway.signal_error, world.gateway.query_error = SignalRefused("full"), CoordinatorPaused("main")
    for standing in (None, '{"command_id": "first", "reason": "r"}'):
        world.gateway.standing = standing
        response = await send(world, "kill-switch")
        assert (response.status_code, response.json()["action"]) == (202, "kill_accepted")
        assert "temporal workflow unpause --workflow-id coordinator-main" in response.headers["X-AIS-Warning"]


@pytest.mark.parametrize("error", [CoordinatorSilent("no worker"), TERMINATED])
async def test_the_cancels_to_carry_out_by_hand_are_of_every_symbol_that_the_desk_covers(
    world: World, error: GatewayError
) -> None:
    """Found: they were of AIS_SYMBOLS alone, without a symbol that `ais symbols add` had added, or that still had orders."""
    world.gateway.carried.seen_symbols = ["SOLUSDT"]
    assert (await world.client.get("/control/status")).status_code == 200
    world.gateway.query_error = error
    response = await send(world, "kill-switch")
    assert response.status_code in (202, 503)
    assert [it["symbol"] for it in response.json()["cancel_instructions"]] == [
        *["BTCUSDT"] * 2,
        *["ETHUSDT"] * 2,
        *["SOLUSDT"] * 2,
    ]


async def test_no_other_command_is_turned_into_a_cancellation(world: World) -> None:
    world.gateway.signal_error = SignalRefused("full")
    assert (await send(world, "pause")).status_code == 503
    assert world.gateway.cancels == []


async def test_a_coordinator_closed_right_after_the_signal_is_503(world: World) -> None:
    world.gateway.query_error = TERMINATED
    response = await send(world, "kill-switch")
    assert response.status_code == 503
    assert "`ais restart`" in response.json()["detail"]
    assert response.json()["cancel_instructions"] == CANCELS


@pytest.mark.parametrize("path", QUERIES)
async def test_no_coordinator_is_503_and_names_the_command_that_helps(world: World, path: str) -> None:
    for error, remedy in ((NEVER_STARTED, "`ais start`"), (TERMINATED, "`ais restart`")):
        world.gateway.query_error = error
        response = await world.client.get(f"/control/{path}")
        assert response.status_code == 503
        assert remedy in response.json()["detail"]


@pytest.mark.parametrize("path", QUERIES)
async def test_a_silent_worker_is_503_and_says_how_long_it_waited(world: World, path: str) -> None:
    world.gateway.no_worker = True
    response = await world.client.get(f"/control/{path}")
    assert response.status_code == 503
    assert f"within {ACK_SECONDS + 0.2:.1f} s" in response.json()["detail"]


async def fill_the_queue(world: World) -> None:
    """101 commands that nobody confirms."""
    world.gateway.no_worker = True
    answers = await asyncio.gather(*(send(world, "cancel-all") for _ in range(MAX_UNCONFIRMED + 1)))
    assert {answer.status_code for answer in answers} == {202}


async def test_with_more_than_100_unconfirmed_commands_others_than_kill_are_503(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.coordinator.ADMISSION_SECONDS", 0.1)
    await fill_the_queue(world)
    for path, body in COMMANDS:
        response = await send(world, path, body)
        assert response.status_code == 503
        assert "101 commands are unconfirmed" in response.json()["detail"]
    assert (await send(world, "kill-switch")).status_code == 202
    assert world.gateway.carried.state == "killed"


async def test_commands_are_taken_again_once_the_worker_is_back(world: World) -> None:
    await fill_the_queue(world)
    world.gateway.no_worker = False
    assert (await send(world, "pause")).status_code == 200


async def test_with_too_many_rows_unwritten_others_than_kill_are_503_until_the_database_takes_them(
    world: World,
) -> None:
    carried = world.gateway.carried
    assert (await send(world, "pause")).status_code == 200
    carried.records = [carried.records[0]] * (MAX_UNWRITTEN + 1)
    await world.client.get("/control/status")
    for path, body in COMMANDS:
        response = await send(world, path, body)
        assert response.status_code == 503
        assert "wait for the database" in response.json()["detail"]
    assert (await send(world, "kill-switch")).status_code == 200
    carried.records = []
    assert (await send(world, "cancel-all")).status_code == 200


async def test_what_the_coordinator_has_not_settled_counts_as_well(world: World) -> None:
    world.gateway.leaves_deleverages = True
    body = {"symbol": "BTCUSDT", "reduce_pct": 0.5}
    await asyncio.gather(*(send(world, "deleverage", body) for _ in range(MAX_UNCONFIRMED)))
    last = world.gateway.carried.deleverages[0]
    world.gateway.carried.deleverages.append(last)
    await world.client.get("/control/status")
    assert (await send(world, "cancel-all")).status_code == 503
    assert world.gateway.carried.commands[last.command.command_id].outcome is Outcome.PENDING
