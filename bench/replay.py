"""`make bench`, second part: `ais replay` over 100,000 bars, as a process of its own.

The floor is the same file read once and nothing done with it. Memory is measured at a tenth of the bars too: it must not grow
with them.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.replay.builders import liquid, made_bars, written

BARS = int(os.environ.get("AIS_BENCH_BARS", "100000"))
ALLOWED_SECONDS = 30.0
READ = "from pathlib import Path; from activities.market.replay import iter_bars; print(sum(1 for _ in iter_bars(Path({file!r}))))"


def took(command: list[str]) -> tuple[float, int]:
    """Seconds of CPU and peak memory in MB of a process on one core."""
    started = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["taskset", "-c", "0", *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    # ru_maxrss is that of the largest child so far: call with the smallest one first.
    return ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime, ended.ru_maxrss // 1024


def main() -> None:
    """All rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bars = liquid(made_bars(BARS, step=0.0009))
        small, large = written(folder / "small.csv", bars[: BARS // 10]), written(folder / "large.csv", bars)
        replay = [
            sys.executable,
            "-m",
            "cli",
            "replay",
            "--symbol",
            "BTCUSDT",
            "--json",
            str(folder / "out.json"),
            "--no-chart",
        ]
        began = time.perf_counter()
        tenth, small_mb = took([*replay, str(small)])
        floor, _ = took([sys.executable, "-c", READ.format(file=str(large))])
        whole, large_mb = took([*replay, str(large)])
        print(f"floor: {BARS:,} bars read once   {floor:6.1f} s")
        print(f"replay of {BARS // 10:,} bars          {tenth:6.1f} s   {small_mb} MB")
        print(
            f"replay of {BARS:,} bars         {whole:6.1f} s   {large_mb} MB   {whole / floor:5.1f} x floor, {ALLOWED_SECONDS:.0f} s allowed"
        )
        print(f"({time.perf_counter() - began:.0f} s in all)")


if __name__ == "__main__":
    main()
