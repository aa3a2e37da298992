"""`ais replay` over 100,000 bars, as a process of its own. The floor is the same file read once and nothing done with it.

Memory must not grow with the bars, so its floor is a tenth of them.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.subject import MEGABYTES, Pair, Sample, Steps, Subject
from tests.replay.builders import liquid, made_bars, written

SAMPLES, OF_MEMORY = 7, 2
READ = "import sys, pathlib; from activities.market.replay import iter_bars; sum(1 for _ in iter_bars(pathlib.Path(sys.argv[1])))"
# A small process that starts the measured one: what a fork inherits of a large parent would count as its memory.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def took(*command: str) -> tuple[float, float]:
    """Seconds of CPU and peak memory in MB of a process."""
    measured = [sys.executable, "-c", MEASURE, *command]
    seconds, megabytes = subprocess.run(measured, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(megabytes)


def cpu_of(*command: str) -> Sample:
    """Seconds of the processor."""
    return lambda: took(*command)[0]


def replay_of(file: Path, *flags: str) -> tuple[str, ...]:
    """The command, without the chart."""
    return (sys.executable, "-m", "cli", "replay", "--symbol", "BTCUSDT", "--no-chart", *flags, str(file))


def made_file(path: Path, count: int) -> Path:
    """Bars of a market that is calm and liquid enough for thousands of fills and no kill."""
    return written(path, liquid(made_bars(count, step=0.0009)))


def pairs(bars: int) -> Steps:
    """Time, then memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = made_file(folder / "small.csv", bars // 10), made_file(folder / "large.csv", bars)
        out = ("--json", str(folder / "out.json"))
        whole, tenth = replay_of(large, *out), replay_of(small, *out)
        reads = cpu_of(sys.executable, "-c", READ, str(large))
        yield Pair(f"{bars:,} bars, CPU time", cpu_of(*whole), reads, SAMPLES, warm_up=0)
        yield Pair(
            f"{bars:,} bars, peak memory",
            lambda: took(*whole)[1],
            lambda: took(*tenth)[1],
            OF_MEMORY,
            MEGABYTES,
            floor_name=f"{bars // 10:,} bars",
            warm_up=0,
        )


SUBJECT = Subject("replay", "`ais replay`, all agents, with its JSON", "the file read once", pairs, 100_000, "bars")
