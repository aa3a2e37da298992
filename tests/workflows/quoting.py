"""A venue on which orders rest, and an agent that quotes, around a coordinator in its tests."""

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import calls
from domain.deciding import Choice, nothing
from domain.trading.decisions import DecisionType
from domain.trading.instructions import OrderInstruction, OrderType, Side, TimeInForce, Tool
from domain.trading.market import OpenOrder
from domain.trading.orders import Fate, Order, OrderReport
from domain.trading.proposals import Proposal
from domain.trading.quotes import stands
from tests.workflows.parts import Orders, Part
from tests.workflows.world import BTC, World

AGENT = "maker"


def a_quote(price: str, quantity: str = "0.5", side: Side = Side.BUY) -> OrderInstruction:
    return OrderInstruction(
        symbol=BTC,
        side=side,
        order_type=OrderType.LIMIT,
        quantity=Decimal(quantity),
        price=Decimal(price),
        time_in_force=TimeInForce.GTX,
        reduce_only=False,
    )


@dataclass
class RestingOrders(Orders):
    """Orders that rest at the venue, and are known to."""

    fate: Fate = Fate.OPEN
    settled_as: Fate = Fate.OPEN
    most: int = 0


@dataclass
class SingleCancels:
    """Cancels of single orders."""

    get_through: bool = True
    asked: int = 0
    # They wait here for their answer.
    gate: asyncio.Event | None = None


@dataclass
class Maker:
    """An agent that wants this quote in every cycle. `events` tells what reached the venue, in order."""

    quote: OrderInstruction | None = None
    events: list[str] = field(default_factory=list)


class QuotingWorld(World):
    """A world in which the maker quotes."""

    def __init__(
        self, quote: OrderInstruction | None = None, *unusual: Part, singles: SingleCancels | None = None
    ) -> None:
        super().__init__(*unusual)
        self.resting = next((part for part in unusual if isinstance(part, RestingOrders)), None) or RestingOrders()
        self.orders = self.resting
        self.singles = singles or SingleCancels()
        self.maker = Maker(quote)

    @activity.defn(name="decide")
    async def decide(self, call: calls.DecideCall) -> Choice:
        wanted = self.maker.quote
        if wanted is None or wanted.symbol in call.blocked or stands(call.quotes, AGENT, wanted):
            return nothing("; ".join(["nothing new", *call.blocked.values()]))
        proposal = Proposal(proposal_id="sig_1", agent_id=AGENT, symbol=BTC, side=wanted.side, confidence=1.0)
        return Choice(
            decision_type=DecisionType.ORDER_INTENT,
            summary="Selected BTCUSDT from maker",
            proposal=proposal,
            instruction=wanted,
            risk_passed=True,
            risk_reasons=["approved"],
        )

    @activity.defn(name="place_order")
    async def place_order(self, call: calls.OrderCall) -> OrderReport:
        self.orders.sent.append(call.order.order_id)
        self.maker.events.append(f"sent {call.order.instruction.price}")
        self.venue.open_orders.append(resting(call.order))
        self.resting.most = max(self.resting.most, len(self.venue.open_orders))
        return OrderReport(order_id=call.order.order_id, fate=self.orders.fate)

    @activity.defn(name="cancel")
    async def cancel(self, call: calls.CancelCall) -> None:
        if call.tool is not Tool.CANCEL_ORDER:
            await World.cancel(self, call)
            return
        self.singles.asked += 1
        if self.singles.gate:
            await self.singles.gate.wait()
        if not self.singles.get_through:
            raise ApplicationError(f"cancel_order {call.symbol}: HTTP 503", type="VenueUnavailable")
        gone = [order for order in self.venue.open_orders if order.order_id in call.order_ids]
        self.maker.events += [f"canceled {order.price}" for order in gone]
        self.venue.open_orders = [order for order in self.venue.open_orders if order not in gone]


def resting(order: Order) -> OpenOrder:
    facts = order.instruction.model_dump(exclude={"tool", "time_in_force"})
    return OpenOrder(order_id=order.order_id, market="futures", filled_quantity=Decimal(0), **facts)
