"""A process whose clock is not the machine's: it is ahead of it, or behind, by the seconds that a file names at the moment.

Installed in a worker's fork by the zygote, never by AIS. AIS takes the time from `datetime.now` and `time.time`; what has to
be measured whatever the clock does, it takes from clocks that nobody can set, and so those are left as they are.
"""

import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

PARTS = ("activities", "storage", "worker")


class _LikeTheOther(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


def install(file: Path) -> None:
    """From now on, in every module of AIS that a worker's activities consist of."""
    real_time = time.time

    def ahead() -> float:
        try:
            return float(file.read_text() or 0)
        except (OSError, ValueError):
            return 0.0

    class Stepped(datetime, metaclass=_LikeTheOther):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=ahead())

    time.time = lambda: real_time() + ahead()
    for name, module in [*sys.modules.items()]:
        if name.partition(".")[0] in PARTS and getattr(module, "datetime", None) is datetime:
            vars(module)["datetime"] = Stepped
