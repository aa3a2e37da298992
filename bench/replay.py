"""`make bench`, second part: `ais replay` over 100,000 bars, as a process of its own.

The floor is the same file read once and nothing done with it. Memory is measured at a tenth of the bars too: it must not grow
with them.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.replay.builders import liquid, made_bars, written

BARS = int(os.environ.get("AIS_BENCH_BARS", "100000"))
ALLOWED_SECONDS = 30.0
READ = "import sys, pathlib; from activities.market.replay import iter_bars; sum(1 for _ in iter_bars(pathlib.Path(sys.argv[1])))"
# A small process that starts the measured one: what a fork inherits of a large parent would count as its memory.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss // 1024)
"""


def took(*command: str) -> tuple[float, int]:
    """Seconds of CPU and peak memory in MB of a process on one core."""
    measured = ["taskset", "-c", "0", sys.executable, "-c", MEASURE, sys.executable, *command]
    seconds, megabytes = subprocess.run(measured, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), int(megabytes)


def main() -> None:
    """All rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bars = liquid(made_bars(BARS, step=0.0009))
        small, large = written(folder / "small.csv", bars[: BARS // 10]), written(folder / "large.csv", bars)
        replay = ["-m", "cli", "replay", "--symbol", "BTCUSDT", "--json", str(folder / "out.json"), "--no-chart"]
        floor, _ = took("-c", READ, str(large))
        tenth, small_mb = took(*replay, str(small))
        whole, large_mb = took(*replay, str(large))
    print(f"floor: {BARS:,} bars read once {floor:7.1f} s")
    print(f"replay of {BARS // 10:,} bars       {tenth:7.1f} s   {small_mb} MB")
    print(f"replay of {BARS:,} bars      {whole:7.1f} s   {large_mb} MB   {whole / floor:.1f} x floor")
    print(f"allowed are {ALLOWED_SECONDS:.0f} s for 100,000 bars")


if __name__ == "__main__":
    main()
