"""Builders for what agents see, and a way to install packages of agents without pip."""

import shutil
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from activities.agents.port import Arguments, BarArrays, Quote, arrays_of
from domain.trading.instructions import Side
from domain.trading.market import Bar
from domain.trading.proposals import Proposal

START = datetime(2026, 1, 1, tzinfo=UTC)
BTC, ETH = "BTCUSDT", "ETHUSDT"
PLUGIN = Path(__file__).parent / "plugin"
NOISE = [100, 100.1, 99.9, 100.05, 99.95, 100.1, 99.9, 100, 100.1, 99.95, 100.05, 100]


def some_bars(closes: Sequence[float], spread: float = 0.0) -> list[Bar]:
    """Bars a minute apart; `spread` is how far high and low are from the close."""
    moments = (START + n * timedelta(minutes=1) for n in range(len(closes)))
    return [
        Bar.model_validate(
            {"open_time": moment, "open": c, "high": c + spread, "low": c - spread, "close": c, "volume": 1}
        )
        for moment, c in zip(moments, closes, strict=True)
    ]


def arrays(closes: Sequence[float], spread: float = 0.0) -> BarArrays:
    return arrays_of(some_bars(closes, spread))


def seeing(
    closes: Mapping[str, Sequence[float]] | None = None,
    *,
    spread: float = 0.0,
    book: Mapping[str, Quote] | None = None,
    funding: Mapping[str, float] | None = None,
    positions: Mapping[str, float] | None = None,
) -> Arguments:
    """What agents see; by default two symbols, of which nothing is known."""
    bars = {symbol: arrays(history, spread) for symbol, history in (closes or {}).items()}
    held = dict.fromkeys([BTC, ETH, *bars], 0.0) | dict(positions or {})
    return Arguments(bars, book or {}, funding or {}, held)


def a_proposal(
    agent_id: str = "momentum", symbol: str = BTC, side: Side = Side.BUY, confidence: float = 0.5, **more: object
) -> Proposal:
    facts = {"proposal_id": f"sig_{agent_id}_{symbol}_{side}_{confidence}"}
    return Proposal.model_validate(
        {**facts, "agent_id": agent_id, "symbol": symbol, "side": side, "confidence": confidence, **more}
    )


def install(folder: Path, package: str, points: Mapping[str, str]) -> None:
    """What pip would leave of a package: its modules, and metadata with its entry points."""
    for module in PLUGIN.glob("*.py"):
        shutil.copy(module, folder)
    metadata = folder / f"{package.replace('-', '_')}-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n")
    lines = "".join(f"{name} = {target}\n" for name, target in points.items())
    (metadata / "entry_points.txt").write_text(f"[ais.agents]\n{lines}")


def install_plugin(folder: Path) -> None:
    """The package in `plugin/`, with the entry points of its own pyproject.toml."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    install(folder, project["name"], project["entry-points"]["ais.agents"])
