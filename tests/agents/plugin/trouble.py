"""Agents that misbehave, each in its own way, and one among them that does not."""

import os
import threading
import time
from pathlib import Path


def good(bars, book, funding, positions):
    return [{"symbol": "BTCUSDT", "side": "BUY", "confidence": 0.5, "rationale": str(os.getpid())}]


class Stateful:
    """A class that is an entry point; it counts its own calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, bars, book, funding, positions):
        self.calls += 1
        yield {"symbol": "BTCUSDT", "side": "SELL", "confidence": self.calls / 10}


def hangs(*arguments):
    _leave_pid("hangs")
    while True:
        pass


def hangs_in_c(*arguments):
    """Holds the interpreter's lock, and no Python handler of a signal ever runs."""
    _leave_pid("hangs_in_c")
    return sum(range(10**12))


def sleeps(*arguments):
    time.sleep(3600)


def exits(*arguments):
    os._exit(3)


def dies_later(*arguments):
    """Between two calls."""
    threading.Timer(0.5, os._exit, (5,)).start()
    return []


def hangs_later(*arguments):
    """Between two calls, in C code of a thread, which holds the interpreter's lock."""
    threading.Timer(0.3, sum, (range(10**12),)).start()
    return good(*arguments)


def hangs_later_with_a_child(*arguments):
    """The same, and leaves a process behind, which holds whatever this one has open."""
    if (child := os.fork()) == 0:
        # Where the answer with its id is lost, nobody else ends it.
        time.sleep(120)
        os._exit(0)
    return [*hangs_later(*arguments), {"symbol": "BTCUSDT", "side": "BUY", "confidence": 0.1, "rationale": str(child)}]


def leaves_a_thread(*arguments):
    """Which would keep its process alive."""
    _leave_pid("leaves_a_thread")
    threading.Thread(target=sleeps).start()
    return []


def raises(*arguments):
    raise ZeroDivisionError("division\nby zero" + "!" * 500)


def raises_late(*arguments):
    yield {"symbol": "BTCUSDT", "side": "BUY", "confidence": 0.5}
    raise LookupError("in the middle")


class _TwoArguments(Exception):
    """Cannot be unpickled."""

    def __init__(self, one, two):
        super().__init__(one, two)


def raises_its_own(*arguments):
    raise _TwoArguments(1, 2)


def interrupts(*arguments):
    raise KeyboardInterrupt


def leaves(*arguments):
    raise SystemExit(4)


def silent(*arguments):
    return None


def floods(*arguments):
    return ({"symbol": "BTCUSDT", "side": "BUY", "confidence": 0.5} for _ in range(10_000))


def writes(bars, book, funding, positions):
    bars["BTCUSDT"].close[-1] = 0


NOT_AN_AGENT = 7


def _leave_pid(name):
    """For a test that has to know the process of an agent that never answers."""
    if folder := os.environ.get("LEAVE_PID_IN"):
        Path(folder, f"{name}.tmp").write_text(str(os.getpid()))
        Path(folder, f"{name}.tmp").rename(Path(folder, name))
