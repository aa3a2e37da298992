"""nautilus_trader: `python on_nautilus_trader.py bars.csv`, in the peers' environment."""

import sys
from collections import deque
from decimal import Decimal

import numpy as np
import pandas as pd
from momentum import BALANCE, LOOKBACK_BARS, ORDER_FRACTION, may_send, score
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.objects import Money
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy

INSTRUMENT = TestInstrumentProvider.btcusdt_perp_binance()
BARS = BarType.from_str(f"{INSTRUMENT.id}-1-MINUTE-LAST-EXTERNAL")


class Momentum(Strategy):
    """One market order a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self._closes: deque[float] = deque(maxlen=LOOKBACK_BARS + 1)

    def on_start(self) -> None:
        self.subscribe_bars(BARS)

    def equity(self) -> float:
        """Balance and unrealised profit."""
        total = self.portfolio.account(INSTRUMENT.venue).balance_total(USDT).as_double()
        open_ = self.portfolio.unrealized_pnl(INSTRUMENT.id)
        return total + (open_.as_double() if open_ else 0.0)

    def on_bar(self, bar: Bar) -> None:
        price = bar.close.as_double()
        self._closes.append(price)
        if len(self._closes) <= LOOKBACK_BARS or not (found := score(np.array(self._closes))):
            return
        equity, held = self.equity(), float(self.portfolio.net_position(INSTRUMENT.id))
        if may_send(found, held * price, equity):
            quantity = INSTRUMENT.make_qty(Decimal(ORDER_FRACTION * equity / price))
            side = OrderSide.BUY if found > 0 else OrderSide.SELL
            self.submit_order(self.order_factory.market(INSTRUMENT.id, side, quantity))
            self.sent += 1


def main() -> None:
    """Runs, and tells what it came to."""
    frame = pd.read_csv(sys.argv[1])
    frame.index = pd.to_datetime(frame.pop("open_time_ms"), unit="ms", utc=True)
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False))
    engine.add_venue(INSTRUMENT.venue, OmsType.NETTING, AccountType.MARGIN, [Money(BALANCE, USDT)], base_currency=USDT)
    engine.add_instrument(INSTRUMENT)
    engine.add_data(BarDataWrangler(BARS, INSTRUMENT).process(frame))
    engine.add_strategy(strategy := Momentum())
    engine.run()
    print(f"{len(frame):,} bars, {strategy.sent:,} orders, equity {strategy.equity():,.2f}")
    engine.dispose()


if __name__ == "__main__":
    main()
