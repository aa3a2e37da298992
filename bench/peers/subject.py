"""Peers, each with the strategy of our agent `momentum` over the same file of bars, in an environment of their own.

`make bench-peers` installs that environment and measures; a run of all subjects leaves it out.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.machine import ROOT
from bench.replay import cpu_of, made_file, replay_of
from bench.subject import Pair, Remark, Steps, Subject

PEERS = ("nautilus_trader", "backtesting")
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
SAMPLES = 7


def script(peer: str, file: Path) -> tuple[str, ...]:
    """The peer's command."""
    return (str(PYTHON), str(Path(__file__).with_name(f"on_{peer}.py")), str(file))


def said(*command: str) -> str:
    """What a peer's run came to: its last line."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1]


def pairs(bars: int) -> Steps:
    """One for each peer."""
    if not PYTHON.exists():
        sys.exit("The peers are not installed: run `make bench-peers`.")
    with tempfile.TemporaryDirectory() as name:
        file = made_file(Path(name) / "bars.csv", bars)
        ours = replay_of(file, "--agents", "momentum", "--no-json", "--quiet")
        for peer in PEERS:
            theirs = script(peer, file)
            yield Remark(f"{peer}: {said(*theirs)}")
            what = f"momentum over {bars:,} bars, CPU time"
            # New processes: what can be warm is, since both have just been run.
            yield Pair(what, cpu_of(*ours), cpu_of(*theirs), SAMPLES, floor_name=peer, warm_up=0)


SUBJECT = Subject(
    "peers", "`ais replay` with one agent", "the same strategy in another program", pairs, 100_000, "bars", extra=True
)
