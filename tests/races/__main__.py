"""`make races`: a kill races with each thing that may happen to a desk, its moments spread over the measured window."""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.chaos.rounds import arena
from tests.races.races import RACES
from tests.races.running import HEAD, run_race


def main() -> None:
    """Exit status 1 if something did not hold, or no race took place."""
    parser = argparse.ArgumentParser(prog="make races", description="Kills, and what they race with.")
    parser.add_argument("--trials", type=int, default=500, help="of each race")
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
    """All of them, or those that are named; a line each."""
    print(HEAD, flush=True)
    rows, wrong = [HEAD], 0
    async with arena(folder) as place:
        for name in told.only.split(","):
            tally = await run_race(place, RACES[name], told.trials, told.out)
            rows.append(tally.row())
            print("\n".join([rows[-1], *(f"  {each}" for each in tally.wrong)]), flush=True)
            (told.out / "races.md").write_text("\n".join(rows) + "\n")
            wrong += len(tally.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    main()
