"""Signals that have arrived and wait for their turn: kept as they came, kills before all others.

The incident behind this file: a workflow task runs against a deadlock detector, and one that fails is tried again with the
same signals, for ever. 3,000 cheap signals whose handling took 5 ms each held a kill up without end. So a handler only puts
a signal here, and a turn takes no more of them than a task has time for.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from domain.commands import MAX_INPUT_BYTES, RawPayload, kind_of
from domain.states import CommandKind

# A turn's budget: measured, the dearest 400 signals take a fraction of the detector's 7.5 s (tests/domain/test_prices.py).
TURN_SIGNALS = 400
TURN_BYTES = 512 * 1024


class Arrival(NamedTuple):
    """One signal; `kind` is None where no command has its name."""

    name: str
    kind: CommandKind | None
    payloads: Sequence[RawPayload]

    @property
    def weight(self) -> int:
        """Bytes that reading it may cost: what is too large is not read."""
        return len(self.name) + sum(min(len(payload.data), MAX_INPUT_BYTES) for payload in self.payloads)


class Arrivals:
    """A queue of the current run. It need not be carried: no run ends before it is empty."""

    def __init__(self) -> None:
        self._kills: deque[Arrival] = deque()
        self._others: deque[Arrival] = deque()

    def __len__(self) -> int:
        return len(self._kills) + len(self._others)

    def add(self, name: str, payloads: Sequence[RawPayload]) -> None:
        """Takes a signal in, at a price that does not depend on what it holds or how many wait."""
        kind = kind_of(name)
        (self._kills if kind is CommandKind.KILL else self._others).append(Arrival(name, kind, payloads))

    def first_kill(self) -> Iterator[Arrival]:
        """The oldest kill, if there is one, removed as it is given out."""
        if self._kills:
            yield self._kills.popleft()

    def turn(self) -> Iterator[Arrival]:
        """As many as one workflow task may take, each removed as it is given out; kills first."""
        left = TURN_BYTES
        for _ in range(TURN_SIGNALS):
            waiting = self._kills or self._others
            if not waiting or left <= 0:
                return
            left -= waiting[0].weight
            yield waiting.popleft()
