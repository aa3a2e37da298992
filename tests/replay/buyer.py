"""Agents of tests: one that always buys, so that it is the limits that decide, one that fails at times, and two that tell or end
their process."""

import multiprocessing
import os
from typing import Any


def buy_and_hold(bars: Any, book: Any, funding: Any, positions: Any) -> list[dict[str, Any]]:
    """Buys in every bar, as far as it may."""
    return [{"symbol": symbol, "side": "BUY", "confidence": 1.0} for symbol in bars]


def stumbles(bars: Any, book: Any, funding: Any, positions: Any) -> list[dict[str, Any]]:
    """Fails at some prices, several times in a row too, buys at others, and mostly abstains."""
    tenths = round(bars["BTCUSDT"].close[-1] * 10)
    if tenths % 5 < 2:
        raise ValueError("it stumbled")
    return [] if tenths % 7 else [{"symbol": "BTCUSDT", "side": "BUY", "confidence": 1.0}]


def ends_the_process(bars: Any, book: Any, funding: Any, positions: Any) -> list[dict[str, Any]]:
    """Never answers."""
    assert multiprocessing.parent_process() is not None, "that would end whoever runs the tests"
    os._exit(1)


def tells_its_process(bars: Any, book: Any, funding: Any, positions: Any) -> list[dict[str, Any]]:
    """Says where it is asked."""
    # One write: others say so at the same time.
    os.write(2, f"process {os.getpid()}\n".encode())
    return []
