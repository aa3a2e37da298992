"""What an event costs where the state is as large as its bounds admit: it must not grow with what the event is not about.

A new worker does again what every event of a run did, all within one workflow task. So each is bounded, and what is shown after
each makes no text that nobody sees.
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from domain.desk.applying import apply
from domain.desk.carried import Carried, PendingDeleverage, PendingOrder
from domain.desk.details import details
from domain.desk.enforcing import flatten
from domain.desk.handover import pack, unpack
from domain.desk.inbox import MAX_PROPOSALS, expire
from domain.desk.killing import MAX_SEEN_SYMBOLS, note_symbols
from domain.desk.observing import MAX_CARRIED_ORDERS
from domain.desk.open_cancels import OpenCancels
from domain.desk.ordering import nothing_to_send, reduction_prepared, take_report
from domain.desk.outbox import cancels_confirmed
from domain.desk.resting import MAX_QUOTES
from domain.desk.states import CommandKind
from domain.risk.reducing import Reduction
from domain.trading.instructions import OpenCancel, Side
from domain.trading.orders import Fate, OrderReport
from domain.trading.proposals import ProposalRequest, WaitingProposal
from domain.trading.quotes import AgentQuote
from tests.domain.builders import (
    NOW,
    a_command,
    a_desk,
    a_position,
    a_tick,
    an_observation,
    an_open_order,
    an_order,
)
from tests.domain.queues import SYMBOLS, calls
from tests.domain.test_desk import strange

KILL = CommandKind.KILL
SEEN = [f"T{number:03}USDT" for number in range(MAX_SEEN_SYMBOLS)]
FEW = 20


def refused(symbols: list[str]) -> Carried:
    """A kill whose cancels the venue refuses."""
    desk = a_desk(symbols=symbols)
    apply(desk, a_command(KILL, "k"), a_tick())
    for cancel in desk.cancels:
        cancel.attempts, cancel.last_error = 1, "HTTP 503"
    return desk


def closing(symbols: list[str]) -> Carried:
    """A kill that flattens: each position waits for an order that closes it."""
    desk = a_desk(symbols=symbols, kill_flattens=True)
    desk.observation = an_observation(positions=[a_position(2, symbol) for symbol in symbols])
    apply(desk, a_command(KILL, "k"), a_tick())
    cancels_confirmed(desk, [cancel.instruction_id for cancel in desk.cancels], NOW)
    flatten(desk, desk.observation, a_tick())
    return desk


def unknown(symbols: list[str]) -> Carried:
    """Nobody knows what became of the orders that close the positions."""
    desk = closing(symbols)
    for waiting in desk.deleverages:
        plan = Reduction(instruction=an_order(2, Side.SELL, waiting.symbol))
        pending = reduction_prepared(desk, waiting, plan, a_tick())
        take_report(desk, pending, OrderReport(order_id=pending.order.order_id, fate=Fate.UNKNOWN), a_tick())
    return desk


def quoting(symbols: list[str]) -> Carried:
    """As many orders of agents rest as are remembered, as many others as are carried."""
    desk, names = a_desk(symbols=symbols), [f"ord_{symbol}" for symbol in symbols[:MAX_QUOTES]]
    desk.observation = an_observation(open_orders=[an_open_order(symbol) for symbol in symbols[:MAX_CARRIED_ORDERS]])
    order = an_order()
    desk.quotes = {
        name: AgentQuote(
            order_id=name,
            agent_id="a",
            symbol=name[4:],
            side=order.side,
            price=Decimal(1),
            quantity=order.quantity,
            since=NOW,
        )
        for name in names
    }
    return desk


@pytest.mark.parametrize("made", [refused, closing, unknown, quoting])
def test_the_details_make_no_text_that_nobody_sees(made: Callable[[list[str]], Carried]) -> None:
    """They are written anew after each event. With every lane and position a text, that was most of what an event cost."""
    few, many = made(SYMBOLS[:FEW]), made(SYMBOLS)
    # Each order of an agent is looked up in the reading.
    assert calls(lambda: details(many)) - calls(lambda: details(few)) <= 2 * (len(many.quotes) - len(few.quotes))


class Searched(list[Any]):
    """How often something was looked for in it."""

    searches = 0

    def __contains__(self, wanted: object) -> bool:
        self.searches += 1
        return super().__contains__(wanted)


def test_a_new_run_puts_each_open_cancel_in_its_lane_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It put all of them there anew for each piece of what was carried over: for 97 pieces that was half of its start."""
    desk, added, add = refused(SYMBOLS), list[str](), OpenCancels.add
    desk.observation = an_observation(note=strange(700_000))

    def counting(cancels: OpenCancels, cancel: OpenCancel) -> None:
        added.append(cancel.instruction_id)
        add(cancels, cancel)

    monkeypatch.setattr(OpenCancels, "add", counting)
    packed = pack(desk, a_tick(), "run")
    assert packed.packed
    assert len(packed.packed) > 1
    del added[:]
    assert len(unpack(packed).cancels) == 2 * len(SYMBOLS)
    # Once as its piece is read, once in the whole.
    assert len(added) == 2 * 2 * len(SYMBOLS)


def test_orders_at_the_venue_are_not_each_looked_for_among_all_symbols() -> None:
    """A reading shows up to 7,000 of them."""
    desk = a_desk()
    desk.symbols, desk.seen_symbols = symbols, seen = Searched(SYMBOLS), Searched(SEEN)
    orders = [an_open_order(symbol) for symbol in [*SEEN, "NEWUSDT"] * 5]
    assert note_symbols(desk, an_observation(open_orders=orders)) == []
    assert (symbols.searches, seen.searches) == (0, 0)


def values_compared(monkeypatch: pytest.MonkeyPatch, *kinds: type) -> list[object]:
    """Each value of these kinds that is compared with another one from now on."""
    found: list[object] = []

    def compare(one: object, other: object) -> bool:
        found.append(one)
        return one is other

    for kind in kinds:
        monkeypatch.setattr(kind, "__eq__", compare)
    return found


def test_each_event_of_a_position_concerns_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By value, each order was compared with all others: with 200 of them a tenth of a second each time all were asked about."""
    desk = unknown(SYMBOLS)
    last, compared = desk.orders[-1], values_compared(monkeypatch, PendingOrder, PendingDeleverage)
    filled = OrderReport(order_id=last.order.order_id, fate=Fate.FILLED, filled_quantity=Decimal(2))
    take_report(desk, last, filled, a_tick())
    nothing_to_send(desk, desk.deleverages[-1], Reduction(closed=True), a_tick())
    assert (len(desk.orders), len(desk.deleverages)) == (len(SYMBOLS) - 1, len(SYMBOLS) - 2)
    assert not compared


def test_proposals_that_end_together_are_not_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, compared = a_desk(symbols=SYMBOLS), values_compared(monkeypatch, WaitingProposal)
    asked = [
        ProposalRequest(agent_id="a", symbol=symbol, side=Side.BUY, confidence=0.5)
        for symbol in SYMBOLS[:MAX_PROPOSALS]
    ]
    for proposal in [*asked, asked[-1]]:
        apply(desk, a_command(CommandKind.PROPOSE, proposal=proposal), a_tick())
    assert len(desk.proposals) == MAX_PROPOSALS
    expire(desk, a_tick(timedelta(days=1)))
    assert (desk.proposals, compared) == ([], [])


def test_to_close_positions_costs_as_much_for_each_however_many_there_are() -> None:
    prices = []
    for symbols in (SYMBOLS[:FEW], [*SYMBOLS, *SEEN]):
        desk = closing(symbols)
        assert desk.observation
        prices.append(calls(partial(flatten, desk, desk.observation, a_tick())) / len(symbols))
    assert prices[1] < 1.1 * prices[0]
