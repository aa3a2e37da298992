"""The market that a setting names."""

from collections.abc import Sequence
from pathlib import Path

from activities.market.port import MarketError, MarketSource
from activities.market.replay import ReplayMarket
from activities.market.simulated import SimulatedMarket
from domain.symbols import normalise_symbol

__all__ = ["MarketError", "build_market"]

REPLAY = "replay:"
_ALLOWED = "simulated, replay:FILE.csv (for the desk's first symbol) or replay:SYMBOL=FILE.csv,SYMBOL2=FILE2.csv"


def build_market(spec: str, symbols: Sequence[str], seed: int) -> MarketSource:
    """`simulated`, `replay:FILE` or `replay:SYMBOL=FILE,…`; MarketError for anything else."""
    if spec == "simulated":
        return SimulatedMarket(symbols, seed)
    files = replay_files(spec, symbols)
    strange = sorted(set(files) - set(symbols))
    if strange:
        raise MarketError(f"{spec}: {strange[0]} is not a symbol of the desk ({', '.join(symbols)})")
    return ReplayMarket(files)


def replay_files(spec: str, symbols: Sequence[str]) -> dict[str, Path]:
    """The file of each symbol that a replay has data for."""
    named = spec.removeprefix(REPLAY)
    if not spec.startswith(REPLAY) or not named or not symbols:
        raise MarketError(f"{spec!r} is not a market; allowed are {_ALLOWED}")
    # One file may have any name, `=` and `,` included.
    if "=" not in named or Path(named).is_file():
        return {symbols[0]: Path(named)}
    return dict(_pair(part, spec) for part in named.split(","))


def _pair(part: str, spec: str) -> tuple[str, Path]:
    symbol, equals, file = part.partition("=")
    if not equals or not file:
        raise MarketError(f"{spec!r} is not a market; allowed are {_ALLOWED}")
    try:
        return normalise_symbol(symbol), Path(file)
    except ValueError as error:
        raise MarketError(f"{spec}: {error}") from error
