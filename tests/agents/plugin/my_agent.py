"""RSI: buys what was sold hard, sells what was bought hard (Wilder, 1978)."""

import numpy as np

PERIOD = 14


def rsi(bars, book, funding, positions):
    suggestions = []
    for symbol, seen in bars.items():
        change = np.diff(seen.close[-PERIOD - 1 :])
        up, down = change[change > 0].sum(), -change[change < 0].sum()
        if len(seen) <= PERIOD or up + down == 0:
            continue
        value = 100 * up / (up + down)
        if value < 30 or value > 70:
            side = "BUY" if value < 30 else "SELL"
            suggestions.append({"symbol": symbol, "side": side, "confidence": abs(value - 50) / 50})
    return suggestions
