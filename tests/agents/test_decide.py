"""The activity `decide`: the agents are asked of what the venue shows, judged, and counted."""

import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from activities.agents.catalogue import BUILT_IN, InstalledAgent
from activities.agents.runner import InlineAgents
from activities.calls import DecideCall, Scope
from activities.metrics import WorkerMetrics
from activities.observe import ObserveActivities
from domain.deciding import Choice
from domain.desk.states import Mode
from domain.risk.limits import Limits
from domain.trading.agents import AgentHealth
from domain.trading.instructions import OrderInstruction, OrderType, Side
from domain.trading.market import MarketView
from tests.agents.builders import BTC, ETH, NOISE, a_proposal, some_bars
from tests.domain.builders import a_position, an_observation, some_rules

RISING = some_bars([close + n * 0.12 for n, close in enumerate([*NOISE, *NOISE])])
SCOPE = Scope(desk="main", mode=Mode.PAPER)


class Shown:
    """A venue that shows the same bars of every symbol."""

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        return {symbol: MarketView(bars=RISING[-bars:]) for symbol in symbols}


class Desk:
    """The activity with agents of its own, and what it has carried from cycle to cycle."""

    def __init__(self, agents: dict[str, str], weights: dict[str, float] | None = None) -> None:
        self.instruments = WorkerMetrics("main")
        numbers = itertools.count()
        runner = InlineAgents([InstalledAgent(name, target) for name, target in agents.items()])
        new_id = lambda prefix: f"{prefix}_{next(numbers)}"  # noqa: E731
        venue: Any = Shown()
        nowhere: Any = None
        self._activities = ObserveActivities(SCOPE, venue, nowhere, runner, self.instruments, new_id, weights or {})
        self.health: dict[str, AgentHealth] = {}
        self.cycle = 0

    async def decide(self, **changes: Any) -> Choice:
        self.cycle += 1
        facts: dict[str, Any] = {
            "scope": SCOPE,
            "symbols": [BTC],
            "observation": an_observation(
                marks={BTC: Decimal(100), ETH: Decimal(100)}, rules={BTC: some_rules(), ETH: some_rules(ETH)}
            ),
            "limits": Limits(max_data_age_seconds=1e9),
            "blocked": {},
            "cycle": self.cycle,
            "agents": self.health,
        }
        choice = await self._activities.decide(DecideCall(**(facts | changes)))
        # As Temporal hands it to the coordinator and back.
        self.health = Choice.model_validate_json(choice.model_dump_json()).agents
        return choice

    def counted(self, metric: str, **labels: str) -> float | None:
        return self.instruments.registry.get_sample_value(metric, labels)


def trouble(name: str) -> str:
    return f"tests.agents.plugin.trouble:{name}"


async def test_the_votes_of_all_agents_stand_in_the_row() -> None:
    choice = await Desk(BUILT_IN).decide()
    assert choice.summary == "Selected BTCUSDT from momentum"
    assert list(choice.votes) == list(BUILT_IN)
    assert choice.votes["momentum"] > 0.5
    assert [vote for name, vote in choice.votes.items() if name != "momentum"] == [0, 0, 0, 0]
    assert choice.proposal is not None
    assert choice.proposal.proposal_id == "sig_0"
    assert choice.agents == {}


async def test_an_order_of_unknown_fate_leaves_less_room_for_others() -> None:
    lost = OrderInstruction(
        symbol=ETH, side=Side.BUY, order_type=OrderType.MARKET, quantity=Decimal(99), reduce_only=False
    )
    refused = [(await Desk(BUILT_IN).decide(unsettled=unsettled)).risk_reasons for unsettled in ([], [lost])]
    assert ["gross_exposure_exceeded" in reasons for reasons in refused] == [False, True]


async def test_an_agent_that_fails_again_and_again_is_quarantined_and_tried() -> None:
    desk = Desk({"momentum": BUILT_IN["momentum"], "x": trouble("raises_its_own")})
    for _ in range(3):
        choice = await desk.decide()
        assert choice.summary == "Selected BTCUSDT from momentum; agent x failed: _TwoArguments: (1, 2)"
    assert desk.counted("ais_agent_quarantined", agent_id="x") == 0
    for _ in range(10):
        choice = await desk.decide()
        assert choice.summary == "Selected BTCUSDT from momentum; agent x is quarantined until cycle 14"
    assert desk.counted("ais_agent_quarantined", agent_id="x") == 1
    assert (desk.cycle, desk.counted("ais_agent_failures_total", agent_id="x", kind="raised")) == (13, 3)

    choice = await desk.decide()  # the trial
    assert choice.agents == {"x": AgentHealth(failures=4, quarantined_until=35, trials=1)}
    assert desk.counted("ais_agent_failures_total", agent_id="x", kind="raised") == 4


async def test_a_trial_that_succeeds_ends_the_quarantine() -> None:
    desk = Desk({"x": trouble("good")})
    desk.health, desk.cycle = {"x": AgentHealth(failures=3, quarantined_until=14)}, 13
    choice = await desk.decide()
    assert (choice.agents, choice.votes) == ({}, {"x": 0.5})


async def test_every_agent_is_timed_and_its_proposals_and_failures_are_counted() -> None:
    desk = Desk({"good": trouble("good"), "silent": trouble("silent"), "gone": "no_such_module:agent"})
    await desk.decide()
    await desk.decide()
    for name in ("good", "silent", "gone"):
        assert desk.counted("ais_agent_latency_seconds_count", agent_id=name) == 2
    assert desk.counted("ais_signals_total", agent_id="good", direction="BUY") == 2
    assert desk.counted("ais_agent_failures_total", agent_id="silent", kind="nonsense") == 2
    assert desk.counted("ais_agent_failures_total", agent_id="gone", kind="unloadable") == 2


async def test_weights_are_the_settings_own() -> None:
    desk = Desk({"good": trouble("good"), "momentum": BUILT_IN["momentum"]}, weights={"good": 0})
    choice = await desk.decide()
    assert choice.summary == "Selected BTCUSDT from momentum"
    assert choice.votes["good"] == 0.5


async def test_proposals_from_outside_take_part_and_their_makers_are_not_judged() -> None:
    desk = Desk({"x": trouble("silent")})
    choice = await desk.decide(proposals=[a_proposal("llm", ETH, Side.SELL, 0.9)], symbols=[BTC, ETH])
    assert choice.summary.startswith("Selected ETHUSDT from llm; agent x failed: it returned a NoneType")
    assert choice.votes == {"llm": -0.9}
    assert list(choice.agents) == ["x"]


async def test_what_a_person_holds_outside_the_whitelist_counts_as_moving_with_every_order() -> None:
    """The bars of such a symbol are never read. It counted as if nothing moved with it, unlike one whose bars are missing."""
    held = an_observation(positions=[a_position(46, ETH)], marks={BTC: Decimal(100), ETH: Decimal(100)})
    limits = Limits(max_data_age_seconds=1e9, max_position_fraction="0.5", soft_position_fraction="0.5")
    asked: dict[str, Any] = {"observation": held, "limits": limits}
    refused = "concentration_exceeded: 0.51 > 0.5"
    assert refused in (await Desk({"x": trouble("good")}).decide(**asked)).risk_reasons
    # Where both are the desk's own, their bars tell.
    both = await Desk({"x": trouble("good")}).decide(**asked, symbols=[BTC, ETH])
    assert refused in both.risk_reasons


async def test_a_call_and_a_choice_of_an_older_version_are_still_read() -> None:
    old = {"scope": SCOPE, "symbols": [BTC], "observation": an_observation(), "limits": Limits(), "blocked": {}}
    call = DecideCall.model_validate(old)
    assert (call.agents, call.cycle, call.proposals) == ({}, 0, [])
    assert Choice.model_validate({"decision_type": "no_action", "summary": "x"}).agents == {}
