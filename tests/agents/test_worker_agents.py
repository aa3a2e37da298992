"""Which agents a worker asks, by its settings."""

import os
import subprocess
import sys
from datetime import timedelta

import pytest

from activities.agents.catalogue import BUILT_IN, UnknownAgent
from activities.agents.pool import GRACE_SECONDS, PATIENCE_SECONDS
from activities.options import DECIDE
from settings import AgentSettings
from tests.house.sources import ROOT
from worker import choose_agents


def test_a_worker_asks_the_agents_that_its_settings_name() -> None:
    assert [agent.name for agent in choose_agents(AgentSettings(agents=("all",)))][:4] == list(BUILT_IN)[:4]
    assert [agent.name for agent in choose_agents(AgentSettings(agents=("momentum",)))] == ["momentum"]


def test_an_agent_over_http_may_have_a_weight_without_being_installed() -> None:
    choose_agents(AgentSettings(agents=("momentum",), agent_weights={"somewhere-else": 0.5}))
    with pytest.raises(UnknownAgent):
        choose_agents(AgentSettings(agents=("somewhere-else",)))


def test_agents_that_take_all_their_time_leave_the_activity_enough_to_end_within_its_own() -> None:
    slowest = max(bound.le for bound in AgentSettings.model_fields["agent_seconds"].metadata if hasattr(bound, "le"))
    longest = timedelta(seconds=PATIENCE_SECONDS + slowest + GRACE_SECONDS)
    assert longest < DECIDE["start_to_close_timeout"]


def test_a_worker_refuses_to_start_with_an_agent_that_is_not_installed() -> None:
    environment = {**os.environ, "AIS_AGENTS": "momentun", "AIS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/ais"}
    done = subprocess.run(
        [sys.executable, "worker.py"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "AIS_AGENTS names 'momentun', which is not installed. Installed: momentum, mean_reversion, volatility_breakout,"
    )
