"""Trading rules for a symbol whose exchange rules are unknown."""

from decimal import Decimal

from domain.trading.market import SymbolRules
from domain.values import plain

MIN_NOTIONAL = Decimal(5)
MAX_LOTS = 1_000_000
MARKET_MAX_LOTS = 120_000
MULTIPLIER_UP = Decimal("1.05")
MULTIPLIER_DOWN = Decimal("0.95")
MAINTENANCE_RATIO = Decimal("0.005")
LIQUIDATION_FEE = Decimal("0.01")
_TICK_DIGITS = 5


def rules_near(symbol: str, price: Decimal, tick_size: Decimal | None = None) -> SymbolRules:
    """Rules of the magnitude that exchanges use: a price of six digits, a lot worth 10 to 100 in quote currency.

    BTCUSDT at 60,000 gets tick 0.1, lot 0.001, and at most 1,000 in a limit and 120 in a market order, as on Binance's
    futures (exchangeInfo).
    """
    lot_step = plain(Decimal(1).scaleb(1 - price.adjusted()))
    return SymbolRules(
        symbol=symbol,
        tick_size=tick_size or tick_near(price),
        lot_step=lot_step,
        min_quantity=lot_step,
        min_notional=MIN_NOTIONAL,
        max_quantity=plain(MAX_LOTS * lot_step),
        market_max_quantity=plain(MARKET_MAX_LOTS * lot_step),
        multiplier_up=MULTIPLIER_UP,
        multiplier_down=MULTIPLIER_DOWN,
        maintenance_ratio=MAINTENANCE_RATIO,
        liquidation_fee=LIQUIDATION_FEE,
    )


def tick_near(price: Decimal) -> Decimal:
    """The step that leaves a price six significant digits."""
    return Decimal(1).scaleb(price.adjusted() - _TICK_DIGITS)
