"""What agents and guards are shown of a symbol: the same prices and quantities by which an order of theirs would fill."""

from collections.abc import Sequence
from decimal import Decimal

from domain.instructions import Side
from domain.market import Bar, MarketView, TopOfBook
from domain.paper.book import Exchange
from domain.paper.funding import next_funding_hour
from domain.paper.matching import left_of_bar, market_price
from domain.values import ZERO


def market_view(symbol: str, bars: Sequence[Bar], exchange: Exchange, taken: Decimal = ZERO) -> MarketView | None:
    """One symbol's newest bars, oldest first, its book and its next funding rate; None where there is no data.

    `taken` is what the account has had of the newest bar's volume.
    """
    rules = exchange.rules(symbol)
    if rules is None or not bars:
        return None
    newest, terms = bars[-1], exchange.terms
    left = left_of_bar(newest, taken, rules, terms)
    bid, ask = (market_price(side, newest.close, terms.slippage_bps, rules.tick_size) for side in (Side.SELL, Side.BUY))
    return MarketView(
        bars=list(bars),
        book=TopOfBook(bid=bid, ask=ask, bid_quantity=left, ask_quantity=left),
        funding_rate=exchange.funding.rate(symbol, next_funding_hour(newest.open_time)),
    )
