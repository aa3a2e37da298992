"""Full queues of each kind of signal at its dearest, and what they cost; the tests count calls, `make bench` takes the time."""

import cProfile
import json
import random
import string
from collections.abc import Callable
from decimal import Decimal
from itertools import count, islice
from typing import Any

from domain.desk.applying import apply, failed_to_apply, unknown_signal
from domain.desk.arrivals import TURN_BYTES, Arrivals
from domain.desk.details import details
from domain.desk.handover import pack
from domain.desk.outbox import cancels_begun
from domain.desk.payloads import RawPayload, read_command
from domain.desk.recording import Issued
from domain.desk.states import CommandKind
from domain.desk.status import status_of
from domain.risk.limits import Limits
from tests.domain.builders import a_command, a_desk, a_tick
from workflows.lanes import MAX_CANCELS_AT_ONCE

SIGNALS = 10_000
# The turns that are measured take fewer, even of the smallest ones; the rest of a queue are these again.
MADE_BYTES = 8 * TURN_BYTES
MADE_SIGNALS = 2_000
SYMBOLS = [f"S{number:03}USDT" for number in range(200)]
_random, _steps = random.Random(1), count(1)
# Each byte becomes a letter: a million of them are made in a millisecond, so that the test is not dearer than what it prices.
LETTERS = bytes(string.ascii_letters[byte % 52].encode()[0] for byte in range(256))

Measure = Callable[[Callable[[], object]], float]
Signal = tuple[str, list[RawPayload]]


def word(length: int) -> str:
    return _random.randbytes(length).translate(LETTERS).decode()


def says(name: str, *values: Any) -> Signal:
    return name, [RawPayload("json/plain", json.dumps(value).encode()) for value in values]


def many_fields() -> dict[str, int]:
    """As many as fit into one input that is read."""
    return dict.fromkeys((word(5) for _ in range(4_800)), 0)


def every_limit() -> dict[str, str]:
    """Each a little tighter than the last time, so that all of them change."""
    less = Decimal(next(_steps)) / 10**9
    return {name: str(value - less) for name, value in vars(Limits()).items() if isinstance(value, Decimal)}


# Of each kind the dearest that could be thought of; what is large comes in fewer pieces, since a history holds 50 MB.
KINDS: dict[str, tuple[int, Callable[[], Signal]]] = {
    "a kill": (SIGNALS, lambda: says("kill")),
    "a kill with id and reason": (SIGNALS, lambda: says("kill", {"command_id": word(32), "reason": word(500)})),
    "a kill in another case": (SIGNALS, lambda: says(" KiLL ")),
    "a kill with a long text": (800, lambda: says("kill", word(60_000))),
    "a kill that is too large": (20, lambda: says("kill", word(1_900_000))),
    "a kill that is no JSON": (800, lambda: ("kill", [RawPayload("json/plain", b"[" * 60_000)])),
    "a kill in an unknown encoding": (800, lambda: ("kill", [RawPayload("binary/x", b"\xff" * 60_000)])),
    "a kill with many numbers": (800, lambda: says("kill", {"reason": [1.5] * 12_000})),
    "a kill of control characters": (
        SIGNALS,
        lambda: says("kill", {"command_id": word(32), "reason": "\u202e\x1b" * 250}),
    ),
    "a kill with long numbers": (
        4_000,
        lambda: says("kill", dict.fromkeys(("command_id", "actor", "reason"), 10**4_200)),
    ),
    "a kill with many brackets": (SIGNALS, lambda: says("kill", {"reason": [[]] * 900})),
    "a pause": (SIGNALS, lambda: says("pause", {"command_id": word(32), "reason": word(500)})),
    "a pause with many inputs": (800, lambda: says("pause", *(word(4_000) for _ in range(16)))),
    "a resume": (SIGNALS, lambda: says("resume")),
    "cancel_all": (SIGNALS, lambda: says("cancel_all")),
    "cancel_all by name": (SIGNALS, lambda: says("cancel_all", {"symbols": SYMBOLS})),
    "cancel_all of strange symbols": (800, lambda: says("cancel_all", {"symbols": [word(12) for _ in range(2_000)]})),
    "a deleverage": (SIGNALS, lambda: says("deleverage", {"symbol": SYMBOLS[7], "reduce_pct": 0.5})),
    "a deleverage by too much": (SIGNALS, lambda: says("deleverage", {"symbol": word(30), "reduce_pct": "1e999999"})),
    "symbols to add": (SIGNALS, lambda: says("add_symbols", {"symbols": [word(7).upper() for _ in range(200)]})),
    "a restart": (SIGNALS, lambda: says("restart", {"kill_number": 1, "reason": word(100)})),
    "limits": (SIGNALS, lambda: says("set_limits", {"limits": {"max_leverage": 1 + _random.random() / 1e6}})),
    "every limit": (SIGNALS, lambda: says("set_limits", {"limits": every_limit()})),
    "an unknown limit": (SIGNALS, lambda: says("set_limits", {"limits": {word(64): 1}})),
    "many unknown limits": (SIGNALS, lambda: says("set_limits", {"limits": {word(12): 1 for _ in range(200)}})),
    "a limit with a long name": (800, lambda: says("set_limits", {"limits": {word(60_000): 1}})),
    "a limit with many digits": (800, lambda: says("set_limits", {"limits": {"max_leverage": "9" * 60_000}})),
    "a proposal": (
        SIGNALS,
        lambda: says("propose", {"agent_id": word(20), "symbol": SYMBOLS[3], "side": "BUY", "confidence": 0.8}),
    ),
    "a proposal with strange fields": (800, lambda: says("propose", {word(10): word(100) for _ in range(300)})),
    "a proposal with many inputs of many fields": (48, lambda: says("propose", *(many_fields() for _ in range(16)))),
    "an unknown signal": (SIGNALS, lambda: (word(64), [])),
    "an unknown signal with a long name": (SIGNALS, lambda: (word(900), [])),
}


def calls(work: Callable[[], object]) -> int:
    """Functions that the work enters, Python's and C's. The same on every machine, however busy."""
    # Compiled, unlike a function for `sys.setprofile`, which would take longer than what it counts.
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(entry.callcount for entry in profile.getstats())


def some(count: int, make: Callable[[], Signal]) -> list[Signal]:
    """As many different ones of a queue of `count` as can have their turn while turns are measured."""
    first = make()
    size = sum(len(payload.data) for payload in first[1]) or 1
    return [first, *(make() for _ in range(1, min(count, MADE_SIGNALS, MADE_BYTES // size)))]


def price_of_a_queue(kind: str, state: str, measure: Measure) -> float:
    """All that a new worker has to do again before the next kill: to queue them, every turn with what is shown after it, and
    the hand-over. In the unit of `measure`.
    """
    count, make = KINDS[kind]
    signals = some(count, make)
    desk, arrivals = a_desk(symbols=SYMBOLS), Arrivals()
    if before := {"killed": CommandKind.KILL, "paused": CommandKind.PAUSE}.get(state):
        apply(desk, a_command(before), a_tick())

    def turn() -> None:
        tick = a_tick()._replace(issued=Issued())
        for arrival in arrivals.turn():
            if arrival.kind is None:
                unknown_signal(desk, arrival.name, tick)
                continue
            command = read_command(arrival.kind, arrival.payloads, tick.new_id("command"))
            try:
                apply(desk, command, tick)
            except Exception as error:
                failed_to_apply(desk, command, error, tick)
        for tool, symbol in islice(desk.cancels.lanes, MAX_CANCELS_AT_ONCE):
            cancels_begun(desk, [cancel.instruction_id for cancel in desk.cancels.lane(tool, symbol)])
        details(desk)

    def queue() -> None:
        for number in range(count):
            arrivals.add(*signals[number % len(signals)])

    # The lanes of the cancels are full after five turns; from then on one turn is like another.
    price = measure(queue) + sum(measure(turn) for _ in range(5))
    waiting = len(arrivals)
    price += measure(turn) * waiting / max(waiting - len(arrivals), 1)
    return price + measure(lambda: (status_of(desk, "run"), pack(desk, a_tick(), "run")))
