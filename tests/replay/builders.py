"""Bars that a test makes itself, and the crash where the shared data is at hand."""

import math
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from activities.agents.catalogue import BUILT_IN, ONLY_BY_NAME, InstalledAgent
from activities.agents.runner import InlineAgents
from activities.market.funding import FundingTable
from activities.market.replay import rules_of
from domain.paper.book import Terms
from domain.risk.limits import Limits
from domain.trading.market import Bar
from replay.cycle import Cycle
from replay.engine import Engine, Setup

SHARED = Path(__file__).parents[3] / "shared" / "data"
CRASH = SHARED / "btc_perp_1m_2022-01-20_24_crash.csv"
START = datetime(2022, 1, 20, tzinfo=UTC)
BTC = "BTCUSDT"
D = Decimal
HEADER = "open_time_ms,open,high,low,close,volume"


def made_bars(
    count: int, seed: int = 7, step: float = 0.002, fall_at: int | None = None, fall: float = 0.01
) -> list[Bar]:
    """A walk around 40,000, a bar a minute; from `fall_at` on ten bars fall by `fall`."""
    chance, price, bars = random.Random(seed), 40_000.0, []
    for number in range(count):
        falling = fall_at is not None and fall_at <= number < fall_at + 10
        close = price * math.exp(-fall if falling else chance.gauss(0, step))
        bars.append(_bar(number, price, close, chance))
        price = close
    return bars


def _bar(number: int, opened: float, closed: float, chance: random.Random) -> Bar:
    one, other = (D(str(round(value, 1))) for value in (opened, closed))
    return Bar(
        open_time=START + number * timedelta(minutes=1),
        open=one,
        high=max(one, other) + D(str(round(chance.uniform(0, 20), 1))),
        low=min(one, other) - D(str(round(chance.uniform(0, 20), 1))),
        close=other,
        volume=D(str(round(chance.expovariate(1 / 80), 3))),
    )


def liquid(bars: list[Bar]) -> list[Bar]:
    """The same bars, with volume for everybody."""
    return [bar.model_copy(update={"volume": D(100_000)}) for bar in bars]


def written(path: Path, bars: list[Bar], header: str = HEADER) -> Path:
    """A file of bars."""
    lines = [f"{int(b.open_time.timestamp() * 1000)},{b.open},{b.high},{b.low},{b.close},{b.volume}" for b in bars]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def built_in_agents(*names: str) -> InlineAgents:
    """The built-in agents that `all` means, or some of them."""
    asked = names or [name for name in BUILT_IN if name not in ONLY_BY_NAME]
    return InlineAgents([InstalledAgent(name, BUILT_IN[name]) for name in asked])


def setup(bars: list[Bar], **changes: Any) -> Setup:
    """A desk for these bars."""
    facts: dict[str, Any] = {
        "symbol": BTC,
        "rules": rules_of(BTC, bars),
        "terms": Terms(fee_bps=D(4), slippage_bps=D(2)),
        "funding": FundingTable(D("0.0001")),
        "balance": D(100_000),
        "limits": Limits(),
        "cycle_seconds": 60.0,
    }
    return Setup(**(facts | changes))


def replayed(bars: list[Bar], agents: InlineAgents | None = None, **changes: Any) -> tuple[Engine, list[Cycle]]:
    """Every cycle of these bars."""
    engine = Engine(setup(bars, **changes), agents or built_in_agents(), bars[0].open_time)
    return engine, [*engine.run(bars)]
