"""Agents are found by entry point, and finding them runs none of their code."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from activities.agents.catalogue import (
    BUILT_IN,
    InstalledAgent,
    NotAnAgent,
    UnknownAgent,
    installed_agents,
    load,
    select,
)
from activities.agents.runner import InlineAgents
from domain.trading.proposals import FailureKind
from tests.agents.builders import BTC, PLUGIN, install, install_plugin, seeing
from tests.house.sources import ROOT


def test_a_package_that_was_installed_is_found_without_being_imported(site: Path) -> None:
    install_plugin(site)
    installed = installed_agents()
    assert list(installed.agents) == [*BUILT_IN, "rsi"]
    assert installed.agents["rsi"] == InstalledAgent("rsi", "my_agent:rsi")
    assert installed.warnings == []
    assert "my_agent" not in sys.modules


def test_a_package_that_was_installed_proposes(site: Path) -> None:
    install_plugin(site)
    runner = InlineAgents(select(installed_agents(), ["rsi"]))
    (answer,) = runner.answers(["rsi"], seeing({BTC: [100.0 - n for n in range(20)]}))
    assert [(s.symbol, s.side, s.confidence) for s in answer.suggestions] == [(BTC, "BUY", 1.0)]


@pytest.mark.parametrize(
    ("points", "refusal"),
    [
        (
            {"momentum": "my_agent:rsi"},
            "agent 'momentum' of package 'other' is not used: AIS has an agent of this name",
        ),
        ({"all": "my_agent:rsi"}, "agent 'all' of package 'other' is not used: a name has letters, digits"),
        ({"a,b": "my_agent:rsi"}, "agent 'a,b' of package 'other' is not used: a name has letters, digits"),
        ({"x" * 65: "my_agent:rsi"}, f"agent '{'x' * 65}' of package 'other' is not used: a name has"),
    ],
    ids=["ours", "reserved", "comma", "long"],
)
def test_a_name_that_cannot_be_is_refused_with_a_sentence(site: Path, points: Mapping[str, str], refusal: str) -> None:
    install(site, "other", points)
    installed = installed_agents()
    assert list(installed.agents.items())[: len(BUILT_IN)] == [
        (name, InstalledAgent(name, to)) for name, to in BUILT_IN.items()
    ]
    (warning,) = installed.warnings
    assert warning.startswith(refusal)


def test_of_two_packages_with_one_name_the_first_by_name_has_it(site: Path) -> None:
    install(site, "b-agents", {"same": "trouble:raises"})
    install(site, "a-agents", {"same": "trouble:good"})
    installed = installed_agents()
    assert installed.agents["same"].target == "trouble:good"
    assert installed.warnings == [
        "agent 'same' of package 'b-agents' is not used: trouble:good has this name too; choose another"
    ]


def test_what_is_installed_of_ourselves_may_be_older_than_the_checkout(site: Path) -> None:
    install(site, "ais", {"momentum": "activities.agents.old:Momentum", "gone": "activities.agents.gone:gone"})
    installed = installed_agents()
    assert {name: agent.target for name, agent in installed.agents.items()} == BUILT_IN
    assert installed.warnings == []


def test_settings_choose_among_the_installed_and_keep_their_order() -> None:
    installed = installed_agents()
    assert [agent.name for agent in select(installed, ["all"])] == list(BUILT_IN)[:-1], "quoter takes its name"
    assert [agent.name for agent in select(installed, ["all", "quoter"])] == list(BUILT_IN)
    assert [agent.name for agent in select(installed, ["all", "momentum"])] == list(BUILT_IN)[:-1]
    assert [agent.name for agent in select(installed, ["funding_rate", "momentum"])] == ["funding_rate", "momentum"]
    assert select(installed, ["none"]) == []


def test_a_name_that_is_not_installed_is_an_error_that_lists_those_that_are() -> None:
    expected = "AIS_AGENTS names 'momentun', which is not installed. Installed: momentum, mean_reversion, volatility_br"
    with pytest.raises(UnknownAgent, match=expected):
        select(installed_agents(), ["momentun"])


def test_a_class_is_made_an_instance_of_once(site: Path) -> None:
    install(site, "trouble", {"stateful": "trouble:Stateful"})
    runner = InlineAgents(select(installed_agents(), ["stateful"]))
    said = [runner.answers(["stateful"], seeing())[0].suggestions[0].confidence for _ in range(3)]
    assert said == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("no_such_module:agent", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("trouble:missing", "AttributeError: module 'trouble' has no attribute 'missing'"),
        ("trouble:NOT_AN_AGENT", "NotAnAgent: trouble:NOT_AN_AGENT is a int, which cannot be called"),
    ],
)
def test_one_that_cannot_be_imported_costs_its_own_vote(site: Path, target: str, error: str) -> None:
    install(site, "trouble", {"broken": target, "good": "trouble:good"})
    runner = InlineAgents(select(installed_agents(), ["broken", "good"]))
    broken, good = runner.answers(runner.names, seeing())
    assert broken.failure is not None
    assert (broken.failure.kind, broken.failure.error) == (FailureKind.UNLOADABLE, error)
    assert good.failure is None


def test_what_cannot_be_called_is_not_an_agent(site: Path) -> None:
    install(site, "trouble", {})
    with pytest.raises(NotAnAgent):
        load(InstalledAgent("broken", "trouble:NOT_AN_AGENT"))


def test_the_page_shows_the_package_that_these_tests_install() -> None:
    page = (ROOT / "docs/agents.md").read_text()
    for language, file in (("toml", "pyproject.toml"), ("python", "my_agent.py")):
        shown = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
        assert shown[0] == (PLUGIN / file).read_text(), f"docs/agents.md and tests/agents/plugin/{file} differ"


def test_the_call_that_the_page_shows_prints_a_buy(site: Path) -> None:
    install_plugin(site)
    page = (ROOT / "docs/agents.md").read_text()
    (code,) = re.findall(r"python - <<'END'\n(.*?)\nEND", page, re.DOTALL)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-"], input=code, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("[{'symbol': 'BTCUSDT', 'side': 'BUY'"), done.stderr
