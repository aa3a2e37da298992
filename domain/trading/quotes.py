"""Agents' limit orders: the terms of a proposal, the price, and what is known of an order that rests at the venue."""

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from domain.trading.instructions import OrderInstruction, OrderType, Side, TimeInForce
from domain.values import EXACT, ZERO, Moment, Record, Value, plain

ASKABLE = (TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK)
RESTS = (TimeInForce.GTC, TimeInForce.GTX)
MAX_PRICE_DIGITS = 40
MAX_PRICE_PLACES = 30


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("price", "must be a number, not true or false")
    return value


def upper(value: Any) -> Any:
    """A text as our enumerations are written."""
    return value.strip().upper() if isinstance(value, str) else value


def _time_in_force(value: Any) -> Any:
    named = upper(value)
    if named is not None and named not in ASKABLE:
        raise PydanticCustomError("time_in_force", "must be GTC, IOC or FOK; for GTX set post_only")
    return named


Price = Annotated[
    Decimal,
    Field(gt=0, allow_inf_nan=False, max_digits=MAX_PRICE_DIGITS, decimal_places=MAX_PRICE_PLACES),
    BeforeValidator(_number),
]
AskedTimeInForce = Annotated[
    TimeInForce, BeforeValidator(_time_in_force), WithJsonSchema({"type": "string", "enum": [*map(str, ASKABLE)]})
]


class QuoteTerms(Value):
    """How to place a proposal's order: as a limit order with a `price`, otherwise at market.

    `price` is in quote currency. `time_in_force` defaults to GTC. A `post_only` order never takes from the book (GTX).
    """

    price: Price | None = None
    time_in_force: AskedTimeInForce | None = None
    post_only: bool = False

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.price is None and self.post_only:
            problem = "post_only needs a price"
        elif self.price is None and self.time_in_force is not None:
            problem = "time_in_force needs a price; an order at market has none"
        elif self.post_only and self.time_in_force not in (None, TimeInForce.GTC):
            problem = f"post_only waits in the book, which {self.time_in_force} never does; leave one of them out"
        else:
            return self
        raise PydanticCustomError("quote", "{problem}", {"problem": problem})

    @property
    def sent_as(self) -> TimeInForce | None:
        """The order's time in force at the venue; None for a market order."""
        if self.price is None:
            return None
        return TimeInForce.GTX if self.post_only else self.time_in_force or TimeInForce.GTC


class AgentQuote(Record):
    """An order resting at the venue, and the agent that asked for it. `order_id` is ours, `venue_order_id` the venue's.

    `since` is when the venue was known to have it. `cycle` is the cycle of its last change: only the reading of a later
    cycle can show that it is gone. `canceled`: the venue has confirmed its cancel, but no reading has left it out yet.
    """

    order_id: str
    venue_order_id: str | None = None
    agent_id: str
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    filled: Decimal = ZERO
    since: Moment
    cycle: int = 0
    canceled: bool = False

    @property
    def remaining(self) -> Decimal:
        """The quantity that may still fill."""
        return self.quantity - self.filled

    @property
    def names(self) -> set[tuple[str, str]]:
        """The pairs of symbol and id under which a reading may list it."""
        return {(self.symbol, self.order_id), (self.symbol, self.venue_order_id or self.order_id)}


def passive_price(side: Side, price: Decimal, tick: Decimal) -> Decimal:
    """The price on a whole tick: rounded down for a purchase, up for a sale, so that rounding never costs the desk."""
    rounding = ROUND_FLOOR if side is Side.BUY else ROUND_CEILING
    with localcontext(EXACT):
        return plain((price / tick).to_integral_value(rounding=rounding) * tick)


def quotes_of(quotes: Iterable[AgentQuote], agent_id: str | None, symbol: str) -> list[AgentQuote]:
    """An agent's resting orders on a symbol. Without an agent there are none."""
    mine = (q for q in quotes if agent_id is not None and (q.agent_id, q.symbol) == (agent_id, symbol))
    return [quote for quote in mine if not quote.canceled]


def stands(quotes: Iterable[AgentQuote], agent_id: str, wanted: OrderInstruction) -> bool:
    """Whether the agent already has exactly this order resting: same side, price and unfilled quantity."""
    found = quotes_of(quotes, agent_id, wanted.symbol)
    if wanted.order_type is not OrderType.LIMIT or wanted.time_in_force not in RESTS or len(found) != 1:
        return False
    quote = found[0]
    return (quote.side, quote.price, quote.remaining) == (wanted.side, wanted.price, wanted.quantity)


def order_text(order: OrderInstruction) -> str:
    """A limit order in words: `BUY 0.5 at 99.9 GTX`."""
    return f"{order.side} {order.quantity} at {order.price} {order.time_in_force or TimeInForce.GTC}"
