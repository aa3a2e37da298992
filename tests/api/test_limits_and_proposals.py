"""POST /control/limits and POST /proposals."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.desk.inbox import settle
from domain.desk.states import State
from tests.api.world import AUTHORIZED, World
from tests.domain.builders import a_tick
from workflows.gateway import TemporalUnreachable

PROPOSAL: dict[str, Any] = {"agent_id": "mine", "symbol": "btc/usdt", "side": "BUY", "confidence": 0.8}


# --- limits ---------------------------------------------------------------------------------------------------------


async def test_tightening_a_limit_answers_with_what_it_is_now(world: World) -> None:
    response = await world.client.post("/control/limits", json={"limits": {"max_leverage": 1.5}, "reason": "volatile"})
    assert (response.status_code, response.json()) == (200, {"action": "limits_set", "limits": {"max_leverage": 1.5}})
    assert world.gateway.carried.limits.max_leverage == Decimal("1.5")
    shown = (await world.client.get("/control/coordinator")).json()
    assert shown["limits"]["max_leverage"] == "1.5"


async def test_loosening_takes_a_paused_desk(world: World) -> None:
    body = {"limits": {"hard_leverage": "4"}}
    refused = await world.client.post("/control/limits", json=body)
    assert refused.status_code == 409
    assert "pause the desk first" in refused.json()["detail"]
    world.gateway.carried.state = State.PAUSED
    assert (await world.client.post("/control/limits", json=body)).status_code == 200


@pytest.mark.parametrize("name", ["x" * 65_480, "[" * 1_001])
async def test_what_the_coordinator_would_not_even_read_the_id_of_is_not_sent(world: World, name: str) -> None:
    """Found: it was 202, and `Location` led to a command that nobody ever knew."""
    response = await world.client.post("/control/limits", json={"limits": {name: 1}})
    assert (response.status_code, world.gateway.signals) == (422, [])
    assert response.json()["detail"][0]["msg"].startswith("nothing was sent: an input of ")


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({}, ["body", "limits"]),
        ({"limits": {}}, ["body", "limits"]),
        ({"limits": {"max_leverage": True}}, ["body", "limits", "max_leverage"]),
        ({"limits": {"max_leverage": None}}, ["body", "limits", "max_leverage"]),
        ('{"limits": {"max_leverage": NaN}}', ["body", "limits", "max_leverage"]),
        ('{"limits": {"max_leverage": 1e999}}', ["body", "limits", "max_leverage"]),
        ({"limits": {"max_leverage": "NaN"}}, ["body", "limits"]),
        ({"limits": {"max_levrage": 1}}, ["body", "limits"]),
        ({"limits": {"max_leverage": 2.6}}, ["body", "limits"]),
        ({"limits": {"max_leverage": 1}, "more": 1}, ["body", "more"]),
    ],
)
async def test_a_wrong_limit_is_a_422_that_says_where(world: World, body: Any, location: list[str]) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    response = await world.client.post("/control/limits", content=content)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"][: len(location)] == location
    assert world.gateway.carried.limits.max_leverage == 2


async def test_what_became_of_a_change_is_found_by_its_id(world: World) -> None:
    sent = await world.client.post("/control/limits", json={"limits": {"max_leverage": 1}})
    found = await world.client.get(f"/control/commands/{sent.headers['X-Command-Id']}")
    assert found.json()["action"] == "limits_set"
    assert found.json()["outcome"] == "applied"


# --- proposals ------------------------------------------------------------------------------------------------------


async def test_a_proposal_is_taken_in_and_says_where_to_ask(world: World) -> None:
    response = await world.client.post("/proposals", json=PROPOSAL, headers={"Idempotency-Key": "p1"})
    assert response.status_code == 202
    assert response.json().keys() == {"action", "proposal_id", "expires_at"}
    assert response.json()["action"] == "propose_accepted"
    assert response.headers["Location"] == "/control/commands/p1"
    (waiting,) = world.gateway.carried.proposals
    assert (waiting.proposal.agent_id, waiting.proposal.symbol) == ("mine", "BTCUSDT")
    found = (await world.client.get("/control/commands/p1")).json()
    assert (found["command"], found["outcome"]) == ("propose", "pending")


async def test_the_same_key_takes_it_in_once_and_another_body_is_refused(world: World) -> None:
    key = {"Idempotency-Key": "p1"}
    first = await world.client.post("/proposals", json=PROPOSAL, headers=key)
    again = await world.client.post("/proposals", json=PROPOSAL, headers=key)
    other = await world.client.post("/proposals", json=PROPOSAL | {"side": "SELL"}, headers=key)
    assert first.json() == again.json()
    assert len(world.gateway.carried.proposals) == 1
    assert (other.status_code, other.json()["detail"][0]["type"]) == (422, "idempotency_key_reused")


async def test_who_repeats_a_proposal_is_told_what_a_cycle_made_of_it(world: World) -> None:
    key = {"Idempotency-Key": "p1"}
    await world.client.post("/proposals", json=PROPOSAL, headers=key)
    (waiting,) = world.gateway.carried.proposals
    settle(world.gateway.carried, waiting, None, a_tick(), "taken up by decision_1: not selected")
    again = await world.client.post("/proposals", json=PROPOSAL, headers=key)
    assert (again.status_code, again.json()["action"]) == (200, "proposed")
    assert again.json()["proposal_id"] == waiting.proposal.proposal_id
    assert again.json()["detail"] == "taken up by decision_1: not selected"


@pytest.mark.parametrize(
    ("changes", "location"),
    [
        ({"symbol": "DOGEUSDT"}, ["body", "symbol"]),
        ({"symbol": "?"}, ["body", "symbol"]),
        ({"side": "HOLD"}, ["body", "side"]),
        ({"confidence": 1.1}, ["body", "confidence"]),
        ({"confidence": True}, ["body", "confidence"]),
        ({"agent_id": "not an id"}, ["body", "agent_id"]),
        ({"quantity": 5}, ["body", "quantity"]),
        ({"ttl_seconds": 0}, ["body", "ttl_seconds"]),
        ({"expires_at": "2026-03-12T14:30:00"}, ["body", "expires_at"]),
    ],
)
async def test_a_malformed_proposal_is_a_422_that_says_where(
    world: World, changes: dict[str, Any], location: list[str]
) -> None:
    response = await world.client.post("/proposals", json=PROPOSAL | changes)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == location
    assert world.gateway.carried.proposals == []


async def test_a_late_proposal_is_a_409_that_says_so(world: World) -> None:
    late = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    response = await world.client.post("/proposals", json=PROPOSAL | {"expires_at": late})
    assert response.status_code == 409
    assert "came too late" in response.json()["detail"]


@pytest.mark.parametrize("state", [State.PAUSED, State.KILLED])
async def test_only_a_running_desk_takes_proposals(world: World, state: State) -> None:
    world.gateway.carried.state = state
    response = await world.client.post("/proposals", json=PROPOSAL)
    assert response.status_code == 409
    assert state.value in response.json()["detail"]


async def test_without_a_key_nothing_is_proposed(world: World) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        response = await world.stranger.post("/proposals", content=b"{", headers=headers)
        assert (response.status_code, response.json()) == (401, {"detail": "Not authenticated"})
    assert AUTHORIZED


async def test_without_temporal_nothing_is_recorded_and_with_no_worker_it_is_accepted(world: World) -> None:
    world.gateway.signal_error = TemporalUnreachable("Temporal cannot be reached")
    response = await world.client.post("/proposals", json=PROPOSAL)
    assert (response.status_code, response.json()["detail"][:12]) == (503, "not recorded")
    world.gateway.signal_error, world.gateway.no_worker = None, True
    response = await world.client.post("/proposals", json=PROPOSAL)
    assert (response.status_code, response.json()) == (202, {"action": "propose_accepted"})


# --- limit orders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "location", "text"),
    [
        ({"post_only": True}, ["body"], "post_only needs a price"),
        ({"time_in_force": "FOK"}, ["body"], "time_in_force needs a price"),
        ({"price": 99, "post_only": True, "time_in_force": "IOC"}, ["body"], "which IOC never does"),
        ({"price": 99, "time_in_force": "GTX"}, ["body", "time_in_force"], "must be GTC, IOC or FOK"),
        ({"price": 0}, ["body", "price"], "greater than 0"),
        ({"price": "NaN"}, ["body", "price"], "finite"),
        ({"price": True}, ["body", "price"], "not true or false"),
        ({"price": 99, "market": "spot"}, ["body", "market"], "Extra inputs are not permitted"),
    ],
)
async def test_terms_of_an_order_that_do_not_go_together_are_a_422_that_says_why(
    world: World, terms: dict[str, Any], location: list[str], text: str
) -> None:
    response = await world.client.post("/proposals", json=PROPOSAL | terms)
    assert response.status_code == 422
    (entry,) = response.json()["detail"]
    assert (entry["loc"], entry.keys()) == (location, {"loc", "msg", "type"})
    assert text in entry["msg"]
    assert world.gateway.carried.proposals == []


@pytest.mark.parametrize("price", [64_000.1, "64000.1"])
async def test_a_limit_order_is_proposed_with_its_exact_price(world: World, price: float | str) -> None:
    terms = {"price": price, "post_only": True}
    assert (await world.client.post("/proposals", json=PROPOSAL | terms)).status_code == 202
    (waiting,) = world.gateway.carried.proposals
    assert (waiting.proposal.price, waiting.proposal.sent_as) == (Decimal("64000.1"), "GTX")


async def test_an_order_at_market_says_nothing_of_limits_to_a_worker_that_knows_none(world: World) -> None:
    await world.client.post("/proposals", json=PROPOSAL)
    (name, sent) = world.gateway.signals[-1]
    assert name == "propose"
    assert not {"price", "time_in_force", "post_only"} & sent.keys()
