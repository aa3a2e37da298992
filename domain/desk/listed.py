"""Lists of which people see the first few, and how many there are: an entry is made only when it is read.

The hazard behind this file: after each event of a run its details are written anew. Each time, all that was left of a kill became
texts, for the ten that are shown: with 800 cancels or 400 positions that took 4 ms, the larger part of what an event costs.
"""

from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class Facts(Protocol):
    """What the entries of a part are made of."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


class Listed(Generic[T]):
    """Entries in parts: the facts of each part, and what makes an entry of one of them."""

    def __init__(self, *parts: tuple[Facts, Callable[[Any], T]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(len(facts) for facts, _ in self._parts)

    def __iter__(self) -> Iterator[T]:
        return (make(fact) for facts, make in self._parts for fact in facts)
