"""From outside a running desk: limits crossed by hand."""

from typing import Any

import pytest

from tests.deploy.dev_stack import wait_until
from tests.e2e.live import Live


@pytest.fixture
def desk(live: Live) -> Live:
    """Only what the test proposes is traded."""
    live.stack.settings = {"AIS_AGENTS": "none"}
    live.start("--symbols", "BTCUSDT")
    return live


def risk_actions(desk: Live) -> list[str]:
    rows = desk.decisions(decision_type="risk_action")
    return [row["summary"] for row in reversed(rows)]


def held(desk: Live) -> Any:
    """None while nobody tells of a reading."""
    observation = desk.coordinator().get("observation")
    return observation and [(p["symbol"], p["quantity"]) for p in observation["positions"]]


@pytest.mark.thorough
def test_limits_crossed_by_hand_warn_reduce_and_kill_each_once(desk: Live) -> None:
    """A position of a few per cent; then the limits come down on it."""

    def trade() -> bool:
        if held(desk) == []:
            desk.post("/proposals", {"agent_id": "mine", "symbol": "BTCUSDT", "side": "BUY", "confidence": 1})
        return bool(held(desk))

    wait_until(trade, "a position")
    # Nobody adds to it from here on.
    assert (
        desk.ais("limits", "max_orders_per_minute=1", "max_position_fraction=0.001", "--reason", "test").returncode == 0
    )
    value = next(limit["value"] for limit in desk.coordinator()["portfolio"]["limits"] if limit["limit"] == "position")
    soft = float(value) / 2
    before = risk_actions(desk)
    body = {"limits": {"soft_position_fraction": round(soft, 6)}, "reason": "test"}
    assert desk.post("/control/limits", body).status_code == 200
    wait_until(lambda: any("reducing" in text for text in risk_actions(desk)), "reduced")
    wait_until(lambda: _value(desk) < soft, "inside again")
    told = risk_actions(desk)[len(before) :]
    for share in ("50 %", "75 %", "90 %"):
        assert (
            len([text for text in told if f"has reached {share} of its soft limit" in text and "position" in text]) == 1
        )
    assert len([text for text in told if "reducing BTCUSDT" in text and "Largest position" in text]) == 1
    looser = desk.ais("limits", "hard_leverage=4")
    assert looser.returncode == 1
    assert "pause the desk first" in looser.stderr

    hard = '{"limits": {"max_position_fraction": 0.0001, "soft_position_fraction": 0.0001, "hard_position_fraction": 0.0001}}'
    done = desk.temporal("workflow", "signal", "-w", "coordinator-main", "--name", "set_limits", "--input", hard)
    assert done.returncode == 0, done.stderr
    status = desk.until_quiet()
    assert (status["state"], status["actor"], status["kill"]["source"]) == ("killed", "risk", "risk")
    assert (
        len(
            [
                row
                for row in desk.decisions(decision_type="control")
                if row["summary"].startswith("kill applied by risk")
            ]
        )
        == 1
    )
    assert len([text for text in risk_actions(desk) if "hard limit" in text and "Largest position" in text]) == 1
    wait_until(lambda: held(desk) == [], "closed")
    assert "KILLED" in desk.ais("status").stdout


def _value(desk: Live) -> float:
    return float(next(x["value"] for x in desk.coordinator()["portfolio"]["limits"] if x["limit"] == "position"))
