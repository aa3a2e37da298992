"""Runs a replay: each stretch of the file on its own desk, with progress, JSON and a tally.

Stretches are independent, so long ones are replayed in separate processes, one per core. Results and order are the same: each
process writes its part of the JSON to a file, and the parts are copied in order.
"""

import gc
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import IO, Any

from activities.agents.catalogue import InstalledAgent
from activities.agents.runner import InlineAgents
from activities.market.port import MarketError
from domain.paper.book import FundingRates, Terms
from domain.risk.limits import Limits
from replay.engine import Engine, Setup
from replay.files import BarsFile, Stretch
from replay.report import head_of
from replay.spool import Spool
from replay.tally import Tally

Progress = Callable[[int], None]

# A progress bar that moves with every bar of the market takes a tenth of the time.
BARS_A_STEP = 250

# How many cycles or rows of quiet bars are counted and written together.
STEPS_AT_ONCE = 64

# The usual number is 2,000.
OBJECTS_A_COLLECTION = 50_000

# Below this, starting processes takes longer than they save: each imports for as long as some thousand bars take.
BARS_WORTH_PROCESSES = 20_000


@dataclass(frozen=True)
class ReplayPlan:
    """The starting conditions of every stretch."""

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
        """The settings that a reader of the JSON needs to know."""
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
    """A replayed stretch."""

    stretch: Stretch
    tally: Tally


def replay(
    file: BarsFile, stretches: list[Stretch], plan: ReplayPlan, target: IO[bytes] | None, progress: Progress
) -> list[Run]:
    """Replays each stretch; the JSON goes to `target`, and `progress` gets the number of finished bars."""
    runs, apart = [], len(stretches) > 1 and sum(stretch.bars for stretch in stretches) >= BARS_WORTH_PROCESSES
    each = _in_processes if apart else _one_by_one
    with _document(target, file.path, plan) as begin_part:
        for stretch, tally, copy_part in each(file, stretches, plan, target is not None, progress):
            if target:
                begin_part()
                copy_part(target)
            runs.append(Run(stretch, tally))
    return runs


Part = Callable[[IO[bytes]], None]
"""Writes one stretch's object of the JSON."""


def _one_by_one(
    file: BarsFile, stretches: Sequence[Stretch], plan: ReplayPlan, in_full: bool, progress: Progress
) -> Iterator[tuple[Stretch, Tally, Part]]:
    for stretch in stretches:
        with Spool() as spool:
            tally = _one(file, stretch, plan, spool if in_full else None, progress)
            yield stretch, tally, partial(spool.write, head=head_of(tally, stretch))


def _in_processes(
    file: BarsFile, stretches: Sequence[Stretch], plan: ReplayPlan, in_full: bool, progress: Progress
) -> Iterator[tuple[Stretch, Tally, Part]]:
    # Spawned, not forked: a fork would inherit the caller's threads and open files.
    spawn, most = multiprocessing.get_context("spawn"), min(len(stretches), os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(most, spawn, _begin_process) as pool:
        paths = [Path(folder, str(number)) for number in range(len(stretches))]
        done = [
            pool.submit(_one_apart, file, stretch, plan, path if in_full else None)
            for stretch, path in zip(stretches, paths, strict=True)
        ]
        try:
            for stretch, path, future in zip(stretches, paths, done, strict=True):
                tally = future.result()
                progress(tally.bars)
                yield stretch, tally, partial(_move, path)
        except BaseException as error:
            # Ctrl-C must not wait for a stretch either: a pool that is merely shut down still replays those in its queue.
            for child in multiprocessing.active_children():
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                text = "a process of the replay died: an agent ended it, or memory ran out"
                raise MarketError(text) from None
            raise


def _one_apart(file: BarsFile, stretch: Stretch, plan: ReplayPlan, part: Path | None) -> Tally:
    """Replays one stretch in a separate process. An agent's prints must not end up in the JSON there either."""
    with Spool() as spool, redirect_stdout(sys.stderr):
        tally = _one(file, stretch, plan, spool if part else None, lambda _: None)
        if part:
            with part.open("wb") as target:
                spool.write(target, head_of(tally, stretch))
    return tally


def _begin_process() -> None:
    """Makes this process end at once on Ctrl-C, and when its parent dies, for whatever reason."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    spare_collector()


def spare_collector() -> None:
    """Makes the garbage collector run less often. Imported objects live until the end; otherwise it would scan them again and
    again. And of what a replay makes, next to nothing is in a cycle: a block of bars alone would have it run."""
    gc.freeze()
    gc.set_threshold(OBJECTS_A_COLLECTION)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _move(part: Path, target: IO[bytes]) -> None:
    with part.open("rb") as source:
        shutil.copyfileobj(source, target)
    part.unlink()


def _one(file: BarsFile, stretch: Stretch, plan: ReplayPlan, spool: Spool | None, progress: Progress) -> Tally:
    tally, blocks = Tally(), file.blocks(stretch.episode)
    engine = Engine(plan.setup(stretch), InlineAgents(plan.agents), stretch.begin)
    steps, shown = engine.run_blocks(blocks), 0
    # Many at once: the same code again and again takes less time.
    while found := [*islice(steps, STEPS_AT_ONCE)]:
        for step in found:
            tally.add(step)
        if spool:
            for step in found:
                spool.add(step)
        if tally.bars >= shown + BARS_A_STEP:
            progress(tally.bars - shown)
            shown = tally.bars
    progress(tally.bars - shown)
    tally.end(engine.measures())
    return tally


@contextmanager
def _document(target: IO[bytes] | None, path: Path, plan: ReplayPlan) -> Iterator[Callable[[], None]]:
    """Writes the JSON around the runs; nothing if no JSON is wanted. It yields a function to call before each run."""
    between = chain([b""], repeat(b",\n"))

    def begin_part() -> None:
        assert target is not None
        target.write(next(between))

    if target:
        facts = {"file": path.name, "symbol": plan.symbol, "settings": plan.facts()}
        target.write(json.dumps(facts, indent=1, default=str)[:-2].encode() + b',\n"runs": [\n')
    yield begin_part
    if target:
        target.write(b"\n]}\n")
