"""The queue of signals that wait for their turn: in order of arrival, kills before all others.

The incident behind this file: Temporal's deadlock detector fails a workflow task that takes too long, and the server retries
it with the same signals, for ever. 3,000 cheap signals that took 5 ms each blocked a kill without end. So a handler only
queues its signal here, and a turn takes only as many as one task has time for.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from domain.desk.payloads import MAX_INPUT_BYTES, RawPayload, kind_of
from domain.desk.states import CommandKind

# A turn's budget. The most expensive 400 signals take a fraction of the detector's 7.5 s (tests/domain/test_prices.py).
TURN_SIGNALS = 400
TURN_BYTES = 512 * 1024


class Arrival(NamedTuple):
    """One signal. `kind` is None if no command has this name."""

    name: str
    kind: CommandKind | None
    payloads: Sequence[RawPayload]

    @property
    def weight(self) -> int:
        """How many bytes must be read. An input that is too large is never read, so it counts only up to the bound."""
        return len(self.name) + sum(min(len(payload.data), MAX_INPUT_BYTES) for payload in self.payloads)


class Arrivals:
    """The signal queue of the current run. It is never carried over, since no run ends before it is empty."""

    def __init__(self) -> None:
        self._kills: deque[Arrival] = deque()
        self._others: deque[Arrival] = deque()

    def __len__(self) -> int:
        return len(self._kills) + len(self._others)

    def add(self, name: str, payloads: Sequence[RawPayload]) -> None:
        """Queues a signal. The cost does not depend on its content or on the length of the queue."""
        kind = kind_of(name)
        (self._kills if kind is CommandKind.KILL else self._others).append(Arrival(name, kind, payloads))

    def first_kill(self) -> Iterator[Arrival]:
        """Removes and yields the oldest kill, if there is one."""
        if self._kills:
            yield self._kills.popleft()

    def turn(self) -> Iterator[Arrival]:
        """As many signals as one workflow task may take, kills first. Each is removed as it is yielded."""
        left = TURN_BYTES
        for _ in range(TURN_SIGNALS):
            waiting = self._kills or self._others
            if not waiting or left <= 0:
                return
            left -= waiting[0].weight
            yield waiting.popleft()
