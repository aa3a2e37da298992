"""An agent that always buys, so that it is the limits that decide."""

from typing import Any


def buy_and_hold(bars: Any, book: Any, funding: Any, positions: Any) -> list[dict[str, Any]]:
    """Buys in every bar, as far as it may."""
    return [{"symbol": symbol, "side": "BUY", "confidence": 1.0} for symbol in bars]
