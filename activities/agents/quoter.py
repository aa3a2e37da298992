"""Quoter: offers to trade a little away from the price, and waits in the book."""

import math

from activities.agents.port import Bars, Book, Funding, Positions, Suggestion
from domain.trading.instructions import Side

AWAY = 0.001
"""The least distance of a quote from the middle of the book, as a fraction."""

CONFIDENCE = 0.1
DIGITS = 3


def quoter(bars: Bars, book: Book, funding: Funding, positions: Positions) -> list[Suggestion]:
    """A post-only bid below the middle of the book, or an ask above it where the desk is long.

    The price has three digits, rounded away from the middle, so that a quote rests for a while before the market has moved far
    enough for another one to replace it. Its confidence is small: a proposal of any other agent goes first.

    A maker is paid for waiting by the distance to the middle, and quotes the side that brings its inventory back.

    Sources: Ho and Stoll, "Optimal dealer pricing under transactions and return uncertainty", Journal of Financial Economics
    9 (1981); Avellaneda and Stoikov, "High-frequency trading in a limit order book", Quantitative Finance 8 (2008). This is
    the plainest form of it: no volatility, no queue, one side at a time.
    """
    quotes = []
    for symbol, seen in book.items():
        if not seen.bid > 0:
            continue
        middle, asks = (seen.bid + seen.ask) / 2, positions[symbol] > 0
        wanted = middle * (1 + AWAY if asks else 1 - AWAY)
        # 63948 becomes 63900, or 64000 if rounded up.
        places = DIGITS - 1 - math.floor(math.log10(wanted))
        grid = 10.0**-places
        price = round((math.ceil if asks else math.floor)(wanted / grid) * grid, max(places, 0))
        quotes.append(
            Suggestion(
                symbol=symbol,
                side=Side.SELL if asks else Side.BUY,
                confidence=CONFIDENCE,
                expected_return=AWAY,
                rationale=f"{'ask' if asks else 'bid'} {abs(price / middle - 1):.2%} from the middle",
                price=price,
                post_only=True,
            )
        )
    return quotes
