"""What an agent gets and what it answers.

An agent is a function of four mappings, each by symbol:

    def agent(bars, book, funding, positions):
        return [{"symbol": "BTCUSDT", "side": "BUY", "confidence": 0.7}]

docs/agents.md has the rest, and how to install one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field

from domain.trading.instructions import Side
from domain.trading.market import Bar, Market, MarketView, Position, TopOfBook
from domain.trading.proposals import MAX_RATIONALE_CHARS
from domain.trading.quotes import QuoteTerms
from domain.values import ZERO, assembled

MAX_BARS = 60
"""The most bars that an agent gets of a symbol."""

MAX_SUGGESTIONS = 100

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BarArrays:
    """A symbol's bars as arrays of one length, oldest first. `time` is the opening time in milliseconds since 1970.

    Prices are in quote currency, volume in units of the base asset. The arrays cannot be written to: one agent must not
    change what another sees.
    """

    time: NDArray[np.int64]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __post_init__(self) -> None:
        for array in self.columns:
            array.setflags(write=False)

    def __len__(self) -> int:
        """How many bars there are."""
        return len(self.time)

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickled arrays are writable; the constructor makes them read-only again.
        return BarArrays, self.columns

    def part(self, which: slice) -> "BarArrays":
        """Some of the bars. Nothing is copied, and as parts of arrays that cannot be written to, neither can these be."""
        part = object.__new__(BarArrays)
        for name in BarArrays.__slots__:
            object.__setattr__(part, name, getattr(self, name)[which])
        return part

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """The arrays, in the order of the fields."""
        return self.time, self.open, self.high, self.low, self.close, self.volume


class Quote(NamedTuple):
    """Best prices, and the quantities of the base asset offered at them."""

    bid: float
    ask: float
    bid_quantity: float
    ask_quantity: float


class Arguments(NamedTuple):
    """The four arguments of an agent. A symbol whose data is unknown is missing from a mapping; `positions` has every symbol."""

    bars: Mapping[str, BarArrays]
    book: Mapping[str, Quote]
    funding: Mapping[str, float]
    positions: Mapping[str, float]


def _clip(text: object) -> object:
    """Cuts a rationale: a long one must not cost a vote, and half a surrogate pair must not cost a cycle."""
    if not isinstance(text, str):
        return text
    return text[:MAX_RATIONALE_CHARS].encode("utf-8", "replace").decode()


class Suggestion(QuoteTerms):
    """What an agent would do. `confidence` is a fraction of 1, `expected_return` a fraction of the price, before costs.
    With a `price` it is a limit order.

    Validated again when it is received, since the agent may have made it without validation. An unknown field is an error: a
    misspelt one would go unnoticed.
    """

    model_config = ConfigDict(revalidate_instances="always", extra="forbid")

    symbol: str
    side: Side
    # NaN is refused: it passes every comparison and cannot be written to the decision log.
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    expected_return: Annotated[float, Field(allow_inf_nan=False)] | None = None
    rationale: Annotated[str, BeforeValidator(_clip)] = ""


def suggested(symbol: str, side: Side, confidence: float, expected_return: float, rationale: str) -> Suggestion:
    """An order at market that an agent of ours suggests. Whoever receives it validates it (`reply.py`); once is enough."""
    terms = {"price": None, "time_in_force": None, "post_only": False}
    return assembled(
        Suggestion,
        {
            **terms,
            "symbol": symbol,
            "side": side,
            "confidence": confidence,
            "expected_return": expected_return,
            "rationale": rationale,
        },
    )


Bars = Mapping[str, BarArrays]
Book = Mapping[str, Quote]
Funding = Mapping[str, float]
Positions = Mapping[str, float]
Agent = Callable[[Bars, Book, Funding, Positions], Iterable[Suggestion | Mapping[str, Any]]]


A = TypeVar("A", bound=Agent)
Screen = Callable[[BarArrays, Floats], NDArray[np.bool_]]
"""For a run of bars of one symbol and the next funding rate at each (NaN where unknown): at which of them the agent may have
something to say. Where it is False, the agent abstains for certain, whatever the book and the positions are. A replay calls
it for hundreds of bars at once, and the agent only where it may speak."""


def screened(screen: Screen, *, sees_market_alone: bool = False) -> Callable[[A], A]:
    """Gives an agent a screen. An agent without one is asked at every bar.

    One that `sees_market_alone` answers by its bars and funding rates alone, whatever the book and the positions are. A replay
    asks it ahead of the bars, many times in a row, with an empty book and no position.
    """

    def mark(agent: A) -> A:
        agent.screen = screen  # type: ignore[attr-defined]
        agent.sees_market_alone = sees_market_alone  # type: ignore[attr-defined]
        return agent

    return mark


def arguments_of(views: Mapping[str, MarketView], positions: Sequence[Position]) -> Arguments:
    """What agents see: the market, and the futures positions in its symbols."""
    futures = [position for position in positions if position.market is Market.FUTURES]
    return Arguments(
        bars={symbol: arrays_of(view.bars) for symbol, view in views.items() if view.bars},
        book={symbol: quote_of(view.book) for symbol, view in views.items() if view.book},
        funding={symbol: float(v.funding_rate) for symbol, v in views.items() if v.funding_rate is not None},
        positions={symbol: float(sum((p.quantity for p in futures if p.symbol == symbol), ZERO)) for symbol in views},
    )


def arrays_of(bars: Sequence[Bar]) -> BarArrays:
    """The newest bars as arrays."""
    return columns_of(bars[-MAX_BARS:])


def columns_of(bars: Sequence[Bar]) -> BarArrays:
    """Bars as arrays, however many there are."""
    prices = np.array([(b.open, b.high, b.low, b.close, b.volume) for b in bars], dtype=np.float64).reshape(-1, 5)
    time = np.array([round(bar.open_time.timestamp() * 1000) for bar in bars], dtype=np.int64)
    # Copy each column into one piece of memory, which makes an agent's dot products faster.
    return BarArrays(time, *(column.copy() for column in prices.T))


def quote_of(book: TopOfBook) -> Quote:
    """The best prices as an agent gets them."""
    return Quote(float(book.bid), float(book.ask), float(book.bid_quantity), float(book.ask_quantity))
