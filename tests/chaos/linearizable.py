"""Whether commands on the state could have taken effect one after the other, each at a moment between its call and its answer.

The search is that of Wing and Gong with the memory of Lowe: a state with a set of calls that took effect is looked at once.
A call whose fate is unknown may have taken effect at any time after it began, or never.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

RUNNING, PAUSED, KILLED = "running", "paused", "killed"
STATES = (RUNNING, PAUSED, KILLED)


@dataclass(frozen=True)
class Operation:
    """One call. `end` is infinite where nobody knows when it took effect; `must`: it did take effect.

    `kind`: pause, resume, kill, restart, or read. `result`: what it was told: `done`, `refused`, the state that it read, or
    nothing, where either is possible.
    """

    kind: str
    start: float
    end: float = math.inf
    must: bool = True
    result: str = ""
    name: str = ""


def effects(operation: Operation, state: str) -> frozenset[str]:
    """The states after the operation, as seen by its caller; none if it cannot have been told that in this state."""
    match operation.kind:
        case "read":
            return frozenset({state}) if operation.result == state else frozenset()
        case "kill":
            return frozenset({KILLED})
        case "restart":
            return _restart(operation, state)
        case _:
            return _move(operation, state)


def _restart(operation: Operation, state: str) -> frozenset[str]:
    runs = frozenset({RUNNING}) if state == KILLED and operation.result != "refused" else frozenset[str]()
    # A restart may be refused in any state: it waits for orders and rows, and another kill beats it.
    return runs | (frozenset({state}) if operation.result != "done" else frozenset())


def _move(operation: Operation, state: str) -> frozenset[str]:
    if state == KILLED:
        return frozenset({KILLED}) if operation.result != "done" else frozenset()
    if operation.result == "refused":
        return frozenset()
    return frozenset({PAUSED if operation.kind == "pause" else RUNNING})


def explain(operations: Sequence[Operation], first: str = RUNNING) -> str | None:
    """None if there is an order in which it all fits, else which calls do not."""
    search = _Search(sorted(operations, key=lambda each: each.start))
    return None if search.fits(first) else search.furthest


class _Search:
    def __init__(self, operations: Sequence[Operation]) -> None:
        self._all = operations
        self._required = sum(1 << n for n, each in enumerate(operations) if each.must)
        self._best = 0
        self.furthest = ""

    def fits(self, first: str) -> bool:
        """Depth first, without recursion: a round has more calls than Python has frames to spare."""
        seen, stack = {(0, first)}, [(0, first)]
        while stack:
            done, state = stack.pop()
            if done & self._required == self._required:
                return True
            self._note(done, state)
            for n in self._next(done):
                for after in effects(self._all[n], state):
                    reached = (self._with_silent_reads(done | 1 << n, after), after)
                    if reached not in seen:
                        seen.add(reached)
                        stack.append(reached)
        return False

    def _next(self, done: int) -> list[int]:
        """Calls that may be next: those that began before any other one that must come has ended."""
        open_ = [n for n in range(len(self._all)) if not done >> n & 1]
        limit = min((self._all[n].end for n in open_ if self._all[n].must), default=math.inf)
        # Of calls that differ in their beginning alone, the earliest stands for all: whatever another may do, it may do too.
        alike: dict[tuple[object, ...], int] = {}
        for n in open_:
            if (each := self._all[n]).start <= limit:
                alike.setdefault((each.kind, each.result, each.end, each.must), n)
        return [*alike.values()]

    def _with_silent_reads(self, done: int, state: str) -> int:
        """A read that fits now changes nothing, so it is taken at once: to wait with it never helps."""
        while True:
            ready = [n for n in self._next(done) if self._all[n].kind == "read" and self._all[n].result == state]
            if not ready:
                return done
            for n in ready:
                done |= 1 << n

    def _note(self, done: int, state: str) -> None:
        count = (done & self._required).bit_count()
        if count >= self._best:
            self._best = count
            stuck = min(
                (each for n, each in enumerate(self._all) if each.must and not done >> n & 1), key=lambda each: each.end
            )
            self.furthest = f"{stuck.name or stuck.kind} was told {stuck.result!r} where only {state!r} was possible"
