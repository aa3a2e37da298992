"""backtesting.py: `python on_backtesting.py bars.csv`, in the peers' environment."""

import sys
import warnings

import pandas as pd
from backtesting import Strategy
from backtesting.lib import FractionalBacktest
from momentum import BALANCE, FEE, LOOKBACK_BARS, ORDER_FRACTION, may_send, score


class Momentum(Strategy):
    """One market order a signal."""

    sent = 0

    def init(self) -> None:
        """No indicator: the score is worked out bar by bar, as in the other programs."""

    def next(self) -> None:
        if len(self.data) <= LOOKBACK_BARS:
            return
        found, price = score(self.data.Close), self.data.Close[-1]
        if found and may_send(found, self.position.size * price, self.equity):
            Momentum.sent += 1
            (self.buy if found > 0 else self.sell)(size=round(ORDER_FRACTION * self.equity / price))


def main() -> None:
    """Runs, and tells what it came to."""
    # Of trades that are still open at the end.
    warnings.simplefilter("ignore")
    bars = pd.read_csv(sys.argv[1])
    bars.index = pd.to_datetime(bars.pop("open_time_ms"), unit="ms")
    bars.columns = [name.title() for name in bars.columns]
    test = FractionalBacktest(bars, Momentum, cash=BALANCE, commission=FEE, margin=0.1, fractional_unit=1e-3)
    found = test.run()
    print(f"{len(bars):,} bars, {Momentum.sent:,} orders, equity {found['Equity Final [$]']:,.2f}")


if __name__ == "__main__":
    main()
