"""The market that a setting names."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from activities.market.funding import FundingTable, read_funding
from activities.market.port import MarketError, MarketSource
from activities.market.replay import BASE, ReplayMarket, VolumeUnit
from activities.market.simulated import SimulatedMarket
from domain.trading.symbols import normalise_symbol

__all__ = ["MarketError", "build_funding", "build_market", "funding_files"]

REPLAY = "replay:"
_ALLOWED = "simulated, aster, replay:FILE.csv (for the desk's first symbol) or replay:SYMBOL=FILE.csv,SYMBOL2=FILE2.csv"
_ALLOWED_FILES = "FILE.csv (for the desk's first symbol) or SYMBOL=FILE.csv,SYMBOL2=FILE2.csv"


def build_market(spec: str, symbols: Sequence[str], seed: int, volume: VolumeUnit = BASE) -> MarketSource:
    """`simulated`, `replay:FILE` or `replay:SYMBOL=FILE,…`; MarketError for anything else.

    `volume` is the unit of the files' volume.
    """
    if spec == "simulated":
        return SimulatedMarket(symbols, seed)
    return ReplayMarket(replay_files(spec, symbols), volume)


def build_funding(spec: str, symbols: Sequence[str], rate: Decimal) -> FundingTable:
    """`FILE` or `SYMBOL=FILE,…` with funding rates; `rate` applies to every symbol without a file."""
    return FundingTable(rate, {symbol: read_funding(path) for symbol, path in funding_files(spec, symbols).items()})


def funding_files(spec: str, symbols: Sequence[str]) -> dict[str, Path]:
    """The file of each symbol whose rates are known."""
    return _files(spec, spec, symbols, _ALLOWED_FILES) if spec else {}


def replay_files(spec: str, symbols: Sequence[str]) -> dict[str, Path]:
    """The file of each symbol that a replay has data for."""
    named = spec.removeprefix(REPLAY)
    if not spec.startswith(REPLAY) or not named:
        raise MarketError(f"{spec!r} is not a market; allowed are {_ALLOWED}")
    return _files(named, spec, symbols, _ALLOWED)


def _files(named: str, spec: str, symbols: Sequence[str], allowed: str) -> dict[str, Path]:
    # One file may have any name, `=` and `,` included.
    if symbols and ("=" not in named or Path(named).is_file()):
        return {symbols[0]: Path(named)}
    files = {}
    for part in named.split(","):
        symbol, equals, file = part.partition("=")
        if not equals or not file:
            raise MarketError(f"{spec!r} is not understood; allowed are {allowed}")
        try:
            files[normalise_symbol(symbol)] = Path(file)
        except ValueError as error:
            raise MarketError(f"{spec}: {error}") from error
    strange = sorted(set(files) - set(symbols))
    if strange:
        raise MarketError(f"{spec}: {strange[0]} is not a symbol of the desk ({', '.join(symbols)})")
    return files
