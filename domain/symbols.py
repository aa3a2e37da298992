"""Symbols as the venue writes them, and the whitelist that a desk trades."""

from collections.abc import Iterable, Sequence

_DROPPED = str.maketrans("", "", "/- ")
MAX_SYMBOL_CHARS = 32
MAX_TOLD = 10


def normalise_symbol(text: str) -> str:
    """`btc/usdt`, `BTC-USDT` and `BTC USDT` all mean `BTCUSDT`; ValueError for anything that cannot be a symbol."""
    symbol = text.upper().translate(_DROPPED)
    if not symbol or len(symbol) > MAX_SYMBOL_CHARS or not symbol.isascii() or not symbol.isalnum():
        raise ValueError(f"{text[:MAX_SYMBOL_CHARS]!r} is not a symbol; symbols look like BTCUSDT")
    return symbol


def normalise_symbols(texts: Iterable[str]) -> list[str]:
    """Each symbol once, in the order in which it was named first."""
    return list(dict.fromkeys(normalise_symbol(text) for text in texts))


def covered_symbols(whitelist: Sequence[str], seen: Iterable[str]) -> list[str]:
    """What a kill covers: the whitelist in its order, then every other symbol seen with an open order or a position."""
    return list(dict.fromkeys([*whitelist, *sorted(seen)]))


def few(symbols: Sequence[str]) -> str:
    """The first symbols as people are told them: a text that does not grow with the whitelist."""
    more = f" and {len(symbols) - MAX_TOLD} more" if len(symbols) > MAX_TOLD else ""
    return ", ".join(symbols[:MAX_TOLD]) + more
