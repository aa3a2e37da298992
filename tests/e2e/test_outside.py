"""From outside a running desk: limits crossed by hand, and an agent over HTTP that is the one of docs/agents.md."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.dev_stack import wait_until
from tests.e2e.live import Live
from tests.house.sources import ROOT

DOCS = (ROOT / "docs/agents.md").read_text()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One desk for the tests below, which follow each other."""
    live = Live(tmp_path_factory.mktemp("outside").resolve() / "desk")
    # Only what these tests propose is traded, and the agent of the documents is heard without being followed.
    live.stack.settings = {"AIS_AGENTS": "none", "AIS_AGENT_WEIGHTS": "outside=0"}
    live.start("--symbols", "BTCUSDT")
    yield live
    live.clean_up()


def risk_actions(desk: Live) -> list[str]:
    rows = desk.decisions(decision_type="risk_action")
    return [row["summary"] for row in reversed(rows)]


def held(desk: Live) -> Any:
    """None while nobody tells of a reading."""
    observation = desk.coordinator().get("observation")
    return observation and [(p["symbol"], p["quantity"]) for p in observation["positions"]]


def test_the_agent_of_the_documents_votes_in_the_log(desk: Live, tmp_path: Path) -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if "/proposals" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "outside.py").write_text(code.replace("THRESHOLD = 12, 0.0005", "THRESHOLD = 12, 0.0"))
    environment = os.environ | {"API": desk.stack.recorded["api_url"], "AIS_API_KEY": desk.key}
    agent = subprocess.Popen([sys.executable, "outside.py"], cwd=tmp_path, env=environment)
    try:
        wait_until(lambda: bool(desk.decisions(agent_id="outside")), "its vote is in the log")
        assert agent.poll() is None
    finally:
        agent.kill()
        agent.wait()


def test_a_proposal_over_http_and_one_by_temporal_are_taken_up(desk: Live) -> None:
    proposal = {"agent_id": "mine", "symbol": "BTCUSDT", "side": "BUY", "confidence": 1, "expected_return": 0.05}
    sent = desk.post("/proposals", proposal, **{"Idempotency-Key": "by-http"})
    assert (sent.status_code, sent.json()["action"]) == (202, "propose_accepted")
    text = '{"agent_id": "cli", "symbol": "BTCUSDT", "side": "BUY", "confidence": 1, "command_id": "by-temporal"}'
    done = desk.temporal("workflow", "signal", "-w", "coordinator-main", "--name", "propose", "--input", text)
    assert done.returncode == 0, done.stderr
    for command_id in ("by-http", "by-temporal"):
        wait_until(lambda: _is_taken_up(desk, command_id), command_id)  # noqa: B023
    assert desk.post("/proposals", proposal | {"symbol": "DOGEUSDT"}).status_code == 422


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


def _is_taken_up(desk: Live, command_id: str) -> bool:
    return "taken up by" in desk.get(f"/control/commands/{command_id}").text
