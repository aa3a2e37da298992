"""`make chaos`: rounds, each from its seed; then a report as JSON, table and picture. `--mutants` checks the checker instead."""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from domain.desk.versions import SCHEMA_VERSION
from tests.chaos.earlier import Earlier, NotThere, unpacked
from tests.chaos.mutants import run_mutants
from tests.chaos.report import Report
from tests.chaos.rounds import Result, arena
from tests.chaos.schedule import FLOOD, SCENES, plan, seeds, with_signals
from tests.chaos.timeline import timeline


def main() -> None:
    """Exit status 1 if something did not hold, or a mutation was not caught."""
    parser = argparse.ArgumentParser(prog="make chaos", description="Faults, interleavings, and a checker.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; those of the others follow")
    parser.add_argument("--seconds", type=float, default=12.0, help="of faults and commands, a round")
    parser.add_argument(
        "--out", type=Path, default=Path(".chaos"), help="folder of the report, and of rounds that failed"
    )
    parser.add_argument("--mutants", action="store_true", help="break AIS in each known way until the checker sees it")
    parser.add_argument("--only", default="", help="mutations of these invariants, or with these texts in their names")
    parser.add_argument("--scene", default="", choices=("", *SCENES), help="only seeds that play this scene")
    parser.add_argument(
        "--previous", default="", help="commit or tag whose workers take part in some rounds; `none` for nobody's"
    )
    parser.add_argument("--signals", type=int, default=FLOOD, help="that wait for a worker, in the scene of that name")
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ais-chaos-") as folder:
        # PostgreSQL runs as a user of its own.
        Path(folder).chmod(0o755)
        os.environ["TMPDIR"] = folder
        work = run_mutants(told, Path(folder)) if told.mutants else run_rounds(told, Path(folder))
        sys.exit(asyncio.run(work))


async def run_rounds(told: argparse.Namespace, folder: Path) -> int:
    """As many as were asked for."""
    report, earlier, broken = Report(), _earlier(told.previous, folder / "earlier" / "source"), 0
    async with arena(folder, earlier=earlier) as place:
        for seed in seeds(told.seed, told.rounds, told.scene):
            planned = plan(seed, told.seconds, earlier=earlier.schema if earlier else None)
            try:
                result = await place.play(with_signals(planned, told.signals))
            except Exception as error:
                # One desk that does not come up is to be looked into, and no reason to end a night's rounds.
                broken += 1
                kept = _keep(place.folder / f"round-{seed}", told.out / f"broken-{seed}")
                print(f"seed {seed:>6}  BROKE: {type(error).__name__}: {error}   ({kept} has its logs)", flush=True)
                continue
            report.add(result)
            print(_line(result), flush=True)
            if result.violations:
                _tell(result, place.folder / f"round-{seed}", told.out)
    (told.out / "report.json").write_text(report.as_json())
    (told.out / "report.txt").write_text(report.table() + "\n")
    report.picture(told.out / "report.png")
    print(f"\n{report.table()}\n\n{told.out}/report.json, report.txt, report.png")
    return 1 if report.failed or broken else 0


def _earlier(named: str, folder: Path) -> Earlier | None:
    """Whose workers take part, and a line about it."""
    try:
        found = unpacked(named, folder)
    except NotThere as why:
        print(f"No earlier release takes part: {why}.", flush=True)
        return None
    rules = "" if found.schema == SCHEMA_VERSION else f", which knows the rules up to version {found.schema}"
    print(f"In some rounds workers of {found.name} take part{rules}.", flush=True)
    return found


def _line(result: Result) -> str:
    kind = "live" if result.plan.live else "paper"
    upgrade = f", {result.plan.upgrade}" if result.plan.upgrade else ""
    scene = next((note.text for note in result.found.notes if note.text.startswith("scene ")), "no scene")
    recovery = "never settled" if result.recovery is None else f"settled after {result.recovery:.1f} s"
    verdict = f"{len(result.violations)} VIOLATIONS" if result.violations else "ok"
    found = result.found
    counts = f"{len(found.calls)} calls, {len(found.orders)} orders, {len(result.plan.faults)} faults, {scene}{upgrade}"
    return f"seed {result.plan.seed:>6}  {kind:<5}  {counts}, {recovery}, {result.seconds:.0f} s: {verdict}"


def _keep(folder: Path, kept: Path) -> Path:
    """The files of a round, where they outlive the others."""
    kept.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        (kept / file.name).write_bytes(file.read_bytes())
    return kept


def _tell(result: Result, folder: Path, out: Path) -> None:
    """What somebody needs who looks into it: the seed, what did not hold, and what happened around it."""
    kept = _keep(folder, out / f"failed-{result.plan.seed}")
    (kept / "timeline.txt").write_text(timeline(result.found, result.violations, around=None) + "\n")
    print(f"\nmake chaos ROUNDS=1 SEED={result.plan.seed}   ({kept}/timeline.txt has all of it)")
    for violation in result.violations:
        print(f"  {violation.invariant} {violation.rule}: {violation.text}")
    print(f"\n{timeline(result.found, result.violations, around=2.0)}\n")


if __name__ == "__main__":
    main()
