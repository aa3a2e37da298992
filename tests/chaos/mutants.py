"""`make chaos-mutants`: the checker is checked. Each mutation of AIS runs until it is caught, fifty rounds at most."""

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.forking import Zygote
from tests.chaos.invariants.i1_nothing_lost import every_run_can_be_replayed
from tests.chaos.mutations import MUTATIONS, Mutation, apply, copy_tree
from tests.chaos.rounds import Arena, arena
from tests.chaos.schedule import plan, seeds
from tests.chaos.timeline import timeline

MOST_ROUNDS = 50
# This process replays with the code as it is, which cannot replay what a mutation of the workflow has done.
REPLAYED = every_run_can_be_replayed.__name__


@dataclass
class Caught:
    """What became of a mutation: after how many rounds it was caught, 0 if never, and by which rules."""

    mutation: Mutation
    rounds: int
    rules: Counter[str]
    seconds: float

    def row(self) -> str:
        """A line of the table."""
        by = ", ".join(rule for rule, _ in self.rules.most_common(3)) or "-"
        told = f"{self.rounds} round{'s' if self.rounds > 1 else ''}" if self.rounds else "NOT CAUGHT"
        return f"| {self.mutation.invariant} | {self.mutation.name} | {told} | {by} |"


async def run_mutants(told: argparse.Namespace, folder: Path) -> int:
    """All of them, or those that are named."""
    wanted = told.only.split(",")
    chosen = [m for m in MUTATIONS if any(text in m.name or text == m.invariant for text in wanted)]
    rows = ["| invariant | mutation | caught after | by |", "|---|---|---|---|"]
    print("\n".join(rows), flush=True)
    missed = 0
    async with arena(folder) as place:
        for number, mutation in enumerate(chosen):
            caught = await _until_caught(place, mutation, told, folder / f"mutant-{number}")
            missed += not caught.rounds
            rows.append(caught.row())
            print(rows[-1], flush=True)
            (told.out / "mutants.md").write_text("\n".join(rows) + "\n")
    return 1 if missed else 0


async def _until_caught(place: Arena, mutation: Mutation, told: argparse.Namespace, tree: Path) -> Caught:
    tree.mkdir()
    copy_tree(tree)
    apply(mutation, tree)
    zygote, began = Zygote(tree, tree), time.monotonic()
    await zygote.open()
    mutant = Arena(place.temporal, place.postgres, zygote, tree / "rounds")
    try:
        for number, seed in enumerate(seeds(told.seed, min(told.rounds, MOST_ROUNDS), told.scene), 1):
            result = await mutant.play(plan(seed, told.seconds))
            if seen := [violation for violation in result.violations if violation.rule != REPLAYED]:
                shown = timeline(result.found, seen, around=None)
                (told.out / f"{mutation.name.replace(' ', '-')}.txt").write_text(shown)
                rules = Counter(f"{violation.invariant} {violation.rule}" for violation in seen)
                return Caught(mutation, number, rules, time.monotonic() - began)
        return Caught(mutation, 0, Counter(), time.monotonic() - began)
    finally:
        await zygote.close()
