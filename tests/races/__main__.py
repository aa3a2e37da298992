"""`make races`: a kill races with each thing that may happen to a desk, its moments spread over the measured window."""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.rounds import arena
from tests.races.races import RACES
from tests.races.running import HEAD, Tally, run_races


def main() -> None:
    """Exit status 1 if something did not hold, or no race took place."""
    parser = argparse.ArgumentParser(prog="make races", description="Kills, and what they race with.")
    parser.add_argument("--trials", type=int, default=500, help="of each race")
    parser.add_argument("--desks", type=int, default=3, help="that race at the same time")
    parser.add_argument("--only", default=",".join(RACES), help=f"of {', '.join(RACES)}")
    parser.add_argument(
        "--out", type=Path, default=Path(".races"), help="folder of the table, and of what did not hold"
    )
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ais-races-") as folder:
        # PostgreSQL runs as a user of its own.
        Path(folder).chmod(0o755)
        os.environ["TMPDIR"] = folder
        sys.exit(asyncio.run(run(told, Path(folder))))


async def run(told: argparse.Namespace, folder: Path) -> int:
    """All of them, or those that are named. The table is there from the first desk on, for whoever breaks off."""
    table, races = told.out / "races.md", [RACES[name] for name in told.only.split(",")]

    def tell(tallies: Sequence[Tally]) -> None:
        table.write_text(as_table(tallies) + "\n")
        print(f"{sum(tally.trials for tally in tallies)} trials of {told.trials * len(races)}", flush=True)

    async with arena(folder) as place:
        tallies = await run_races(place, races, told.trials, told.out, told.desks, tell)
    table.write_text(as_table(tallies) + "\n")
    print(f"\n{as_table(tallies)}")
    return 1 if any(tally.wrong for tally in tallies) else 0


def as_table(tallies: Sequence[Tally]) -> str:
    """A line each; below them, what did not hold."""
    wrong = (f"{tally.race}: {each}" for tally in tallies for each in tally.wrong)
    return "\n".join([HEAD, *(tally.row() for tally in tallies), "", *wrong]).rstrip()


if __name__ == "__main__":
    main()
