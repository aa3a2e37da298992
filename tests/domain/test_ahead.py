"""A choice that came with a reading is used on the very facts that it was made from, and on no others."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from activities import options
from domain.deciding import nothing
from domain.desk.ahead import (
    DECISION_LASTS,
    READING_LASTS,
    ChoiceAhead,
    ObservedAndChosen,
    blocked_symbols,
    may_choose,
)
from domain.desk.applying import apply
from domain.desk.carried import Carried
from domain.desk.outbox import order_prepared
from domain.desk.states import CommandKind
from domain.health.books_seen import BooksSeen
from domain.risk.limits import Limits
from domain.trading.agents import AgentHealth
from domain.trading.instructions import Side
from domain.trading.market import LatchRow, Observation
from domain.trading.proposals import ProposalRequest
from tests.domain.builders import BTC, ETH, NOW, a_command, a_desk, a_position, a_tick, an_observation, watched
from tests.domain.test_resting import an_agents_order, rested

TIGHT = Limits(max_position_fraction="0.004", soft_position_fraction="0.01", hard_position_fraction="0.5")
CHOICE = nothing("No agent proposed an order")


def a_trading_desk() -> Carried:
    """One with everything that a choice is made from."""
    c = a_desk(symbols=[BTC, ETH], account="a", database_id="db", cycle_number=7)
    rested(c, "q")
    c.recent_orders = [NOW]
    c.agents = {"x": AgentHealth(failures=1)}
    propose(c, "p", "a")
    return c


def propose(c: Carried, command_id: str, agent_id: str) -> None:
    asked = ProposalRequest(agent_id=agent_id, symbol=BTC, side=Side.BUY, confidence=0.5)
    apply(c, a_command(CommandKind.PROPOSE, command_id, proposal=asked), a_tick())


def chosen(c: Carried, ahead: ChoiceAhead, seen: Observation, now: datetime = NOW) -> Any:
    return ahead.choice(c, seen, blocked_symbols(c), c.proposals, now)


def test_nothing_has_changed_and_the_choice_is_used() -> None:
    c, seen = a_trading_desk(), an_observation()
    ahead = ChoiceAhead(c, NOW)
    assert ahead.take(ObservedAndChosen(seen, CHOICE)) is seen
    assert chosen(c, ahead, seen) is CHOICE


def test_a_reading_without_a_choice_leaves_it_to_a_decision() -> None:
    c, seen = a_trading_desk(), an_observation()
    ahead = ChoiceAhead(c, NOW)
    assert chosen(c, ahead, seen) is None
    ahead.take(ObservedAndChosen(seen, None))
    assert chosen(c, ahead, seen) is None


def test_orders_of_unknown_fate_are_among_the_facts() -> None:
    c = a_trading_desk()
    order = an_agents_order("ord_2", symbol=ETH)
    order_prepared(c, order)
    assert ChoiceAhead(c, NOW).facts.unsettled == [order.instruction]


def _an_order_is_on_its_way(c: Carried) -> None:
    order_prepared(c, an_agents_order("ord_2", symbol=ETH))


def _a_proposal_is_replaced(c: Carried) -> None:
    propose(c, "p2", "a")


def _a_proposal_arrives(c: Carried) -> None:
    propose(c, "p3", "b")


def _a_quote_fills(c: Carried) -> None:
    # In place, as a reading does it.
    c.quotes["q"].filled = Decimal("0.1")


def _a_quote_is_canceled(c: Carried) -> None:
    c.quotes["q"].canceled = True


CHANGES: list[Callable[[Carried], Any]] = [
    _an_order_is_on_its_way,
    _a_proposal_is_replaced,
    _a_proposal_arrives,
    _a_quote_fills,
    _a_quote_is_canceled,
    lambda c: setattr(c, "limits", Limits(max_leverage="1")),
    lambda c: c.proposals.clear(),
    lambda c: c.quotes.clear(),
    lambda c: c.recent_orders.append(NOW),
    lambda c: c.agents.pop("x"),
    lambda c: c.symbols.append("SOLUSDT"),
    lambda c: setattr(c, "account", "b"),
    lambda c: setattr(c, "database_id", "other"),
    lambda c: setattr(c, "cycle_number", 8),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_choice_is_dropped_if_anything_has_changed_that_it_was_made_from(change: Callable[[Carried], Any]) -> None:
    c, seen = a_trading_desk(), an_observation()
    ahead = ChoiceAhead(c, NOW)
    ahead.take(ObservedAndChosen(seen, CHOICE))
    change(c)
    assert chosen(c, ahead, seen) is None


def test_a_choice_is_dropped_if_it_was_made_from_another_reading() -> None:
    c = a_trading_desk()
    ahead = ChoiceAhead(c, NOW)
    ahead.take(ObservedAndChosen(an_observation(), CHOICE))
    assert chosen(c, ahead, an_observation()) is None


def test_a_choice_is_dropped_if_it_has_lain() -> None:
    """No worker took the answer for a while; how old the data were was judged when the choice was made."""
    c, seen = a_trading_desk(), an_observation()
    ahead = ChoiceAhead(c, NOW)
    ahead.take(ObservedAndChosen(seen, CHOICE))
    assert chosen(c, ahead, seen, NOW + READING_LASTS) is CHOICE
    assert chosen(c, ahead, seen, NOW + READING_LASTS + timedelta(milliseconds=1)) is None


def test_an_answer_may_take_as_long_as_its_activity() -> None:
    assert options.OBSERVE["schedule_to_close_timeout"] == READING_LASTS
    assert options.DECIDE["schedule_to_close_timeout"] == DECISION_LASTS


def test_a_quiet_reading_may_bring_a_choice() -> None:
    assert may_choose(watched(an_observation()))
    assert may_choose(watched(an_observation(positions=[a_position(1)], latch=LatchRow(killed=False, kill_number=3))))


@pytest.mark.parametrize(
    "seen",
    [
        an_observation(),
        watched(an_observation(doubts=["two sources differ"])),
        watched(an_observation(latch_error="the database cannot be reached")),
        watched(an_observation(latch=LatchRow(killed=True, kill_number=1))),
        watched(an_observation(books=BooksSeen(holder="another"))),
        watched(an_observation(positions=[a_position(5)]), TIGHT),
        watched(an_observation(positions=[a_position(70)])),
    ],
    ids=["not measured", "doubtful", "latch unread", "killed", "held by another", "to be reduced", "breach"],
)
def test_a_reading_that_has_to_be_acted_on_first_brings_none(seen: Observation) -> None:
    assert not may_choose(seen)
