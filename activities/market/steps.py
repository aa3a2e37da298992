"""Rules of a symbol for which no exchange has told us any."""

from decimal import Decimal

from domain.market import SymbolRules

MIN_NOTIONAL = Decimal(5)
_TICK_DIGITS = 5


def rules_near(symbol: str, price: Decimal, tick_size: Decimal | None = None) -> SymbolRules:
    """Rules of the magnitude that exchanges use: a price of six digits, a lot worth 10 to 100 in quote currency.

    BTCUSDT at 60,000 gets tick 0.1 and lot 0.001, as on Binance's futures (exchangeInfo).
    """
    lot_step = Decimal(1).scaleb(1 - price.adjusted())
    return SymbolRules(
        symbol=symbol,
        tick_size=tick_size or tick_near(price),
        lot_step=lot_step,
        min_quantity=lot_step,
        min_notional=MIN_NOTIONAL,
    )


def tick_near(price: Decimal) -> Decimal:
    """The step that leaves a price six significant digits."""
    return Decimal(1).scaleb(price.adjusted() - _TICK_DIGITS)
