"""The baseline: a few hundred short programs and what each comes to, in `baseline.json`, one program a line.

    .venv/bin/python -m tests.interleavings.baseline          # the same programs, what they come to now
    .venv/bin/python -m tests.interleavings.baseline --draw   # other programs: after a new kind of command or step

A stored history covers what once happened. Here a change of behaviour shows as a diff, wherever it is.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.interleavings.programs import draw
from tests.interleavings.rehearsal import Rehearsal, Step

FILE = Path(__file__).with_name("baseline.json")
TAILS, TAIL_STEPS = 32, 12
# For people. They are digested apart, so that a better sentence is told from another behaviour.
TEXTS = {"summary", "detail", "reason", "text", "risk_reasons", "last_error", "observation_error", "actor"}

SEES: list[Step] = [["read latch", "read"], ["cycle", "begin"], ["cycle", "long"]]
SENDS: list[Step] = [*SEES, ["cycle", "buy BTC"], ["cycle", "done"]]
RESTS: list[Step] = [*SEES, ["cycle", "quote at 99"], ["cycle", "done"], ["cycle", "open"]]
AHEAD: list[Step] = [*SEES[:-1], ["cycle", "long with buy BTC"]]
KILL: Step = ["turn", [["kill", {"command_id": "k"}]]]
WRITES: list[Step] = [["begin", "records"], ["end", "records", "done"], ["begin", "latch"], ["end", "latch", "done"]]
RESTART: Step = ["turn", [["restart", {"command_id": "r", "kill_number": 1}]]]
REDUCE: Step = ["turn", [["deleverage", {"command_id": "d", "symbol": "BTCUSDT", "reduce_pct": 0.5}]]]
REDUCING = "deleverage/BTCUSDT"
# Where a program begins.
PREFIXES: dict[str, list[Step]] = {
    "started": [["read latch", "read"]],
    "observed": SEES,
    "decided beside the reading": AHEAD,
    "an order is being sent": SENDS,
    "an order's fate is unknown": [*SENDS, ["cycle", "unknown"]],
    "an order rests": RESTS,
    "killed": [*SEES, KILL],
    "killed while an order is being sent": [*SENDS, KILL],
    "killed and written": [*SEES, ["cycle", "nothing"], KILL, *WRITES],
    "restarting": [*SEES, ["cycle", "nothing"], KILL, *WRITES, RESTART, ["begin", "restart"]],
    "reducing": [*SEES, ["cycle", "nothing"], REDUCE, ["begin", REDUCING], ["end", REDUCING, "planned"]],
}


def result_of(terms: dict[str, Any], steps: list[Step]) -> dict[str, Any]:
    """What a program comes to: a few facts for people, and digests of everything."""
    desk, states = Rehearsal(**terms), list[str]()
    for step in steps:
        desk.step(step)
        states.append(desk.run.c.state.value)
    c, rows = desk.run.c, list(desk.database.decisions.values())
    everything = [c.model_dump(mode="json", exclude_defaults=True), [r.model_dump(mode="json") for r in rows]]
    return {
        "states": [state for state, _ in groupby(states)],
        "outcomes": {name: f"{r.kind} {r.outcome}" for name, r in c.commands.items()},
        "orders": [p.phase.value for p in c.orders],
        "cancels": len(c.cancels),
        "rows": len(c.records) + len(rows),
        "facts": _digest(_split(everything, texts=False)),
        "texts": _digest(_split(everything, texts=True)),
    }


def _split(value: Any, texts: bool) -> Any:
    """The value without its texts, or with nothing else."""
    if isinstance(value, list):
        return [_split(each, texts) for each in value]
    if not isinstance(value, dict):
        return None if texts else value
    return {
        name: each if name in TEXTS else _split(each, texts)
        for name, each in value.items()
        if not (name in TEXTS and not texts)
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def programs() -> Iterator[dict[str, Any]]:
    """Other programs, drawn by seeds."""
    for where, prefix in PREFIXES.items():
        for seed in range(TAILS):
            terms = {"kill_flattens": seed % 4 == 3, "mode": "shadow" if seed % 8 == 6 else "paper"}
            desk = Rehearsal(**terms)
            for step in prefix:
                desk.step(step)
            yield {
                "begins": where,
                "terms": terms,
                "steps": [*prefix, *draw(desk, len(where) * 1000 + seed, TAIL_STEPS)],
            }


def stored() -> list[dict[str, Any]]:
    """The programs in the file, with what they came to when it was written."""
    found: list[dict[str, Any]] = json.loads(FILE.read_text())
    return found


def write(found: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> int:
    """Plays the programs and writes the file."""
    lines = [
        json.dumps(
            {k: each[k] for k in ("begins", "terms", "steps")} | {"after": result_of(each["terms"], each["steps"])}
        )
        for each in found
    ]
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    return len(lines)


if __name__ == "__main__":
    print(f"{write(programs() if '--draw' in sys.argv else stored())} programs in {FILE.name}")
