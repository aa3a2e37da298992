"""The report of a chaos run: as JSON, as a table, and as a picture."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.checker import RULES
from tests.chaos.rounds import Result


@dataclass
class Report:
    """What was tried, and what did not hold."""

    rounds: int = 0
    live_rounds: int = 0
    seeds: list[int] = field(default_factory=list)
    seconds: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    # How often a command was under way while a fault lasted.
    pairs: Counter[str] = field(default_factory=Counter)
    continuations: int = 0
    orders: int = 0
    violations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RULES, 0))
    failed: list[dict[str, Any]] = field(default_factory=list)
    slowest_recovery: float = 0.0
    slowest_recovery_seed: int | None = None

    def add(self, result: Result) -> None:
        """One more round."""
        found = result.found
        self.rounds += 1
        self.live_rounds += found.live
        self.seeds.append(found.seed)
        self.seconds += result.seconds
        self.continuations += sum(event.kind == "continued" for event in found.events)
        self.orders += len(found.orders)
        self._add_calls(result)
        if (result.recovery or 0.0) > self.slowest_recovery:
            self.slowest_recovery, self.slowest_recovery_seed = result.recovery or 0.0, found.seed
        for violation in result.violations:
            self.violations[violation.invariant] += 1
        if result.violations:
            self.failed.append({"seed": found.seed, "violations": [asdict(each) for each in result.violations]})

    def _add_calls(self, result: Result) -> None:
        faults = [note for note in result.found.notes if note.fault]
        self.faults.update(note.fault for note in faults)
        for call in result.found.calls:
            self.calls[f"{call.channel} {call.kind}"] += 1
            self.answers[call.answer] += 1
            end = call.end or float("inf")
            met = {note.fault for note in faults if note.at <= end and (note.until or float("inf")) >= call.start}
            self.pairs.update(f"{fault} + {call.kind}" for fault in met)

    # --- how it is told ------------------------------------------------------------------------------------------------

    def as_json(self) -> str:
        """Everything."""
        return json.dumps(vars(self), indent=1)

    def table(self) -> str:
        """For a terminal."""
        kinds = {pair.split(" + ")[1] for pair in self.pairs}
        head = [
            f"rounds      {self.rounds} ({self.live_rounds} of them live), seeds {_few(self.seeds)}, {self.seconds:.0f} s",
            f"calls       {self.calls.total()}: {_counts(self.answers)}",
            f"commands    {_counts(self.calls)}",
            f"faults      {self.faults.total()}: {_counts(self.faults)}",
            f"pairs       {len(self.pairs)} of {len(self.faults) * len(kinds)} (fault, command) were under way together",
            f"runs        {self.continuations} continuations as new, {self.orders} orders at the venue",
            f"recovery    {self.slowest_recovery:.1f} s at most (seed {self.slowest_recovery_seed})",
        ]
        rules = [f"{name}  {len(RULES[name])} rules, {count} violations" for name, count in self.violations.items()]
        return "\n".join([*head, "", *rules])

    def picture(self, path: Path) -> None:
        """Faults by command: how often both were under way together."""
        from matplotlib.figure import Figure

        faults = sorted(self.faults)
        kinds = sorted({pair.split(" + ")[1] for pair in self.pairs})
        figure = Figure(figsize=(1.5 + 0.7 * len(kinds), 1.5 + 0.28 * len(faults)), layout="tight")
        axes = figure.add_subplot()
        cells = [[self.pairs[f"{fault} + {kind}"] for kind in kinds] for fault in faults]
        if faults and kinds:
            axes.imshow(cells, aspect="auto", cmap="Blues")
        for y, row in enumerate(cells):
            for x, count in enumerate(row):
                axes.text(x, y, str(count or ""), ha="center", va="center", fontsize=6)
        axes.set_xticks(range(len(kinds)), kinds, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(faults)), faults, fontsize=7)
        axes.set_title(f"{self.rounds} rounds, {sum(self.violations.values())} violations", fontsize=9)
        figure.savefig(path, dpi=140)


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.most_common())


def _few(seeds: list[int]) -> str:
    return f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else ", ".join(map(str, seeds))
