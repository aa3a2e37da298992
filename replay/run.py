"""Runs a replay: every stretch of the file on a desk of its own, with progress, JSON and a tally."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from activities.agents.catalogue import InstalledAgent
from activities.agents.room import LocalRoom
from domain.limits import Limits
from domain.paper.book import FundingRates, Terms
from replay.engine import Engine, Setup
from replay.files import BarsFile, Stretch
from replay.report import head_of
from replay.spool import Spool
from replay.tally import Tally

Progress = Callable[[int], None]

# A progress bar that moves with every bar of the market takes a tenth of the time.
BARS_A_STEP = 250


@dataclass(frozen=True)
class Plan:
    """What every stretch starts with."""

    symbol: str
    terms: Terms
    funding: FundingRates
    balance: Decimal
    limits: Limits
    agents: list[InstalledAgent]
    weights: dict[str, float] = field(default_factory=dict)
    kill_flattens: bool = False

    def setup(self, stretch: Stretch) -> Setup:
        """The desk of one stretch."""
        return Setup(
            symbol=self.symbol,
            rules=stretch.rules,
            terms=self.terms,
            funding=self.funding,
            balance=self.balance,
            limits=self.limits,
            cycle_seconds=stretch.interval.total_seconds(),
            weights=self.weights,
            kill_flattens=self.kill_flattens,
        )

    def facts(self) -> dict[str, Any]:
        """What a reader of the JSON has to know."""
        return {
            "balance": self.balance,
            "terms": self.terms.model_dump(mode="json"),
            "limits": self.limits.model_dump(mode="json"),
            "agents": [agent.name for agent in self.agents],
            "weights": self.weights,
            "kill_flattens": self.kill_flattens,
        }


@dataclass(frozen=True)
class Run:
    """One stretch that was replayed."""

    stretch: Stretch
    tally: Tally


def replay(
    file: BarsFile, stretches: list[Stretch], plan: Plan, target: IO[bytes] | None, progress: Progress
) -> list[Run]:
    """Replays each stretch; `target` takes the JSON, `progress` is told the number of bars as they are done."""
    runs = []
    with _document(target, file.path, plan) as write:
        for stretch in stretches:
            with Spool() as spool:
                run = Run(stretch, _one(file, stretch, plan, spool if target else None, progress))
                if target:
                    write(spool, head_of(run.tally, stretch))
            runs.append(run)
    return runs


def _one(file: BarsFile, stretch: Stretch, plan: Plan, spool: Spool | None, progress: Progress) -> Tally:
    tally, engine = Tally(), None
    room = LocalRoom(plan.agents)
    for bar in file.bars(stretch.episode):
        if engine is None:
            engine = Engine(plan.setup(stretch), room, bar.open_time)
        cycle = engine.cycle(bar)
        tally.add(cycle)
        if spool:
            spool.add(cycle)
        if not tally.bars % BARS_A_STEP:
            progress(BARS_A_STEP)
    progress(tally.bars % BARS_A_STEP)
    if engine:
        tally.end(engine.measures())
    return tally


@contextmanager
def _document(target: IO[bytes] | None, path: Path, plan: Plan) -> Iterator[Callable[[Spool, dict[str, Any]], None]]:
    """The JSON around the runs; nothing where nobody wants it."""
    first = True

    def write(spool: Spool, head: dict[str, Any]) -> None:
        nonlocal first
        assert target is not None
        target.write(b"" if first else b",\n")
        spool.write(target, head)
        first = False

    if target:
        facts = {"file": path.name, "symbol": plan.symbol, "settings": plan.facts()}
        target.write(json.dumps(facts, indent=1, default=str)[:-2].encode() + b',\n"runs": [\n')
    yield write
    if target:
        target.write(b"\n]}\n")
