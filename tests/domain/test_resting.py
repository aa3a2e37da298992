"""What agents have resting: kept by order id, seen by readings, gone with confirmed cancels, replaced one at a time."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from domain.deciding import Choice
from domain.desk.carried import Carried, PendingDeleverage
from domain.desk.details import details
from domain.desk.handover import pack, unpack
from domain.desk.killing import kill
from domain.desk.knowledge import known_of
from domain.desk.ordering import decision_of, order_of, reduction_prepared
from domain.desk.outbox import cancels_confirmed, cancels_failed, note_quiet, order_prepared, order_reported
from domain.desk.requoting import blocked, refusal, replace, replaced_by
from domain.desk.resting import MAX_QUOTES, resting_orders, update_from
from domain.desk.states import CommandKind, Mode
from domain.risk.reducing import Reduction
from domain.trading.decisions import DecisionType
from domain.trading.instructions import OrderInstruction, OrderType, Side, Tool
from domain.trading.market import OpenOrder
from domain.trading.orders import Fate, Order, OrderReport
from domain.trading.quotes import AgentQuote
from tests.domain.builders import BTC, ETH, NOW, a_command, a_deleverage, a_desk, a_tick, an_observation, an_open_order

D = Decimal
LATER = NOW + timedelta(seconds=5)


def an_agents_order(
    order_id: str, agent_id: str | None = "maker", symbol: str = BTC, price: str | None = "99"
) -> Order:
    limit = OrderType.MARKET if price is None else OrderType.LIMIT
    instruction = OrderInstruction(
        symbol=symbol, side=Side.BUY, order_type=limit, quantity=D(1), price=price and D(price), reduce_only=False
    )
    times = {"not_after": LATER, "prepared_at": NOW}
    return Order(
        order_id=order_id, command_id=f"d_{order_id}", desk="main", instruction=instruction, agent_id=agent_id, **times
    )


def rested(c: Carried, order_id: str = "ord_1", fate: Fate = Fate.OPEN, **facts: Any) -> Order:
    """An order that was sent, and what the venue said of it."""
    told = {name: facts.pop(name) for name in ("venue_order_id", "filled_quantity") if name in facts}
    order = an_agents_order(order_id, **facts)
    order_reported(c, order_prepared(c, order), OrderReport(order_id=order_id, fate=fate, **told), NOW)
    return order


def listed(order_id: str, symbol: str = BTC, filled: str = "0") -> OpenOrder:
    return an_open_order(symbol).model_copy(update={"order_id": order_id, "filled_quantity": D(filled)})


def next_cycle(c: Carried, *orders: OpenOrder) -> None:
    c.cycle_number += 1
    c.observation = an_observation(open_orders=list(orders))
    update_from(c, c.observation)


def shown(c: Carried) -> list[str]:
    return [order.order_id for order in resting_orders(c)]


def test_only_what_rests_and_has_an_agent_is_kept() -> None:
    c = a_desk()
    rested(c, "ord_1")
    rested(c, "ord_2", fate=Fate.FILLED)
    rested(c, "ord_3", fate=Fate.UNKNOWN)
    rested(c, "ord_4", agent_id=None)
    assert (list(c.quotes), c.quotes["ord_1"].agent_id) == (["ord_1"], "maker")


def test_it_is_kept_within_a_bound_and_the_oldest_goes_first() -> None:
    c = a_desk()
    for number in range(MAX_QUOTES + 2):
        rested(c, f"ord_{number}")
    assert (len(c.quotes), next(iter(c.quotes))) == (MAX_QUOTES, "ord_2")


def test_it_is_carried_over_to_the_next_run() -> None:
    c = a_desk()
    rested(c, filled_quantity=D("0.4"))
    again = unpack(Carried.model_validate_json(pack(c, a_tick(), "run").model_dump_json()))
    assert again.quotes == c.quotes
    assert again.quotes["ord_1"].remaining == D("0.6")


def test_readings_tell_what_filled_and_what_is_gone() -> None:
    c = a_desk()
    rested(c)
    next_cycle(c, listed("ord_1", filled="0.3"))
    assert c.quotes["ord_1"].remaining == D("0.7")
    next_cycle(c)
    assert c.quotes == {}


def test_a_reading_of_the_cycle_in_which_it_came_does_not_say_that_it_is_gone() -> None:
    c = a_desk(cycle_number=3)
    rested(c)
    update_from(c, an_observation())
    assert list(c.quotes) == ["ord_1"]
    assert shown(c) == ["ord_1"], "placed since the reading"


def test_at_the_exchange_it_goes_by_the_exchanges_id() -> None:
    c = a_desk(mode=Mode.LIVE)
    rested(c, venue_order_id="77")
    next_cycle(c, listed("77", filled="0.1"), listed("78"))
    assert shown(c) == ["ord_1", "78"]
    assert [o.agent_id for o in resting_orders(c)] == ["maker", None]
    assert c.quotes["ord_1"].filled == D("0.1")


def test_the_web_ui_shows_it() -> None:
    c = a_desk()
    rested(c, filled_quantity=D("0.4"))
    assert "- **1 resting orders**\n  - BTCUSDT BUY 1 at 99, filled 0.4" in details(c)


def test_a_new_order_replaces_what_rests_of_its_agent_on_its_symbol_alone() -> None:
    c = a_desk()
    rested(c, "ord_1")
    rested(c, "ord_2", agent_id="other")
    rested(c, "ord_3", symbol=ETH)
    order = an_agents_order("ord_9", price=None)
    replace(c, order, a_tick())
    (cancel,) = c.cancels
    assert (cancel.tool, cancel.order_id, cancel.venue_order_id) == (Tool.CANCEL_ORDER, "ord_1", "ord_1")
    assert cancel.instruction_id == f"d_ord_9:1:cancel_order:{BTC}"
    assert blocked(c) == {BTC: "cancel_open: ord_1"}
    replace(c, an_agents_order("ord_10"), a_tick())
    assert len(c.cancels) == 1, "one cancel is enough"
    assert "ord_1 is not confirmed" in (refusal(c, order) or "")
    cancels_confirmed(c, [cancel.instruction_id], LATER)
    assert (refusal(c, order), blocked(c), sorted(shown(c))) == (None, {}, ["ord_2", "ord_3"])


def test_a_cancel_that_is_given_up_confirms_nothing() -> None:
    c = a_desk()
    order = an_agents_order("ord_99")
    for number in range(12):
        rested(c, f"ord_{number}")
    replace(c, order, a_tick())
    cancels_failed(c, [cancel.instruction_id for cancel in c.cancels], "HTTP 503")
    assert (len(c.cancels), len(replaced_by(c, order))) == (10, 12)


def test_without_the_venues_id_all_of_the_symbol_is_canceled() -> None:
    c = a_desk(mode=Mode.LIVE)
    rested(c)
    order = an_agents_order("ord_9")
    replace(c, order, a_tick())
    (cancel,) = c.cancels
    assert (cancel.tool, cancel.symbol) == (Tool.CANCEL_ALL_ORDERS, BTC)
    cancels_confirmed(c, [cancel.instruction_id], LATER)
    assert refusal(c, order) is None


def test_a_cancel_that_was_asked_for_before_the_order_rested_says_nothing_of_it() -> None:
    c = a_desk()
    kill(c, a_command(CommandKind.KILL), a_tick(-timedelta(seconds=1)))
    rested(c)
    cancels_confirmed(c, [cancel.instruction_id for cancel in c.cancels], LATER)
    assert not c.quotes["ord_1"].canceled


def test_what_a_later_reading_still_lists_rests_after_all() -> None:
    c = a_desk(cycle_number=3)
    rested(c)
    replace(c, an_agents_order("ord_9"), a_tick())
    cancels_confirmed(c, [cancel.instruction_id for cancel in c.cancels], LATER)
    c.observation = an_observation(open_orders=[listed("ord_1")])
    update_from(c, c.observation)
    assert shown(c) == [], "that reading may have begun before the cancel"
    next_cycle(c, listed("ord_1"))
    assert shown(c) == ["ord_1"]


def test_the_cancels_of_a_kill_stand_for_those_of_single_orders() -> None:
    c = a_desk()
    rested(c)
    replace(c, an_agents_order("ord_9"), a_tick())
    kill(c, a_command(CommandKind.KILL), a_tick())
    ids = [cancel.instruction_id for cancel in c.cancels if cancel.tool is not Tool.CANCEL_ORDER]
    cancels_confirmed(c, ids, LATER)
    assert c.kill
    assert (len(c.cancels), c.kill.cancels, c.kill.confirmed, c.kill.quiet_at) == (0, 2, 2, LATER)
    assert shown(c) == []


def test_the_cancel_of_another_symbol_or_market_does_not() -> None:
    c = a_desk(symbols=[BTC, ETH])
    rested(c)
    replace(c, an_agents_order("ord_9"), a_tick())
    kill(c, a_command(CommandKind.KILL), a_tick())
    others = [x.instruction_id for x in c.cancels if x.symbol == ETH or x.tool is Tool.CANCEL_SPOT_ALL_ORDERS]
    cancels_confirmed(c, others, LATER)
    note_quiet(c, LATER)
    assert [cancel.tool for cancel in c.cancels] == [Tool.CANCEL_ORDER, Tool.CANCEL_ALL_ORDERS]
    assert not c.quotes["ord_1"].canceled


def test_what_was_placed_after_the_last_reading_has_to_be_confirmed_gone_as_well() -> None:
    """A reading may have begun before it was placed. By that alone an agent's order was forgotten, and sent again."""
    desk = a_desk()
    desk.observation = an_observation()
    for name, canceled in (("ord_1", False), ("ord_2", True)):
        desk.quotes[name] = AgentQuote(
            order_id=name, venue_order_id=f"7{name}", agent_id="maker", symbol=BTC, side=Side.BUY,
            price=Decimal(99), quantity=Decimal(1), since=NOW, canceled=canceled,
        )  # fmt: skip
    assert [resting.order_id for resting in known_of(desk).resting] == ["7ord_1"]


def test_an_order_knows_what_else_of_the_desk_may_move_its_position() -> None:
    desk = a_desk(mode=Mode.LIVE)
    desk.observation = an_observation()
    for name in ("ord_1", "ord_2"):
        rested(desk, name, venue_order_id=f"7{name}")
    desk.quotes["ord_2"].canceled = True
    instruction = an_agents_order("new").instruction
    choice = Choice(decision_type=DecisionType.ORDER_INTENT, summary="x", instruction=instruction)
    new = order_of(desk, choice, decision_of(desk, choice, a_tick()), a_tick())
    assert new.others == ["7ord_1", "7ord_2"]
    # A canceled one fills no more, and is never taken for a reduction: what a kill closes is not put in doubt by it.
    pending = PendingDeleverage(command=a_deleverage(), symbol=BTC, reduce_pct=D(1))
    sized = Reduction(instruction=instruction, position=D(1))
    assert reduction_prepared(desk, pending, sized, a_tick()).order.others == ["7ord_1"]


def test_an_order_of_another_symbol_that_has_the_same_id_is_not_the_quote() -> None:
    desk = a_desk(mode=Mode.LIVE)
    rested(desk, venue_order_id="1001")
    next_cycle(desk, listed("1001", ETH))
    assert desk.quotes == {}
    assert [(order.symbol, order.agent_id) for order in resting_orders(desk)] == [(ETH, None)]
