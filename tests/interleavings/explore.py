"""Explores a small model: every interleaving of its steps, breadth first, so that a fault is found by its shortest trace."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class ModelStep(Generic[S]):
    """One step: the states that it may lead to, none where it cannot happen. `code` names the functions that do it, as
    `module:function`; a step of the world, such as a crash, has none. `is_due`: it happens by itself, sooner or later.
    """

    name: str
    code: tuple[str, ...]
    moves: Callable[[S], Iterable[S]]
    is_due: bool = True


@dataclass(frozen=True)
class Model(Generic[S]):
    """`holds`: what must be so in every state. `rests`: what must be so where nothing is left to do."""

    starts: Mapping[str, S]
    steps: tuple[ModelStep[S], ...]
    holds: Mapping[str, Callable[[S], bool]]
    rests: Mapping[str, Callable[[S], bool]]


class Explored(NamedTuple):
    """How many states there are, and in how many nothing is left to do. `broken`: what does not hold, `trace`: the shortest way
    there."""

    states: int
    rests: int
    broken: str | None = None
    trace: tuple[str, ...] = ()


def explore(model: Model[S]) -> Explored:
    """All of it, or as far as the first fault."""
    came: dict[S, tuple[S | None, str]] = {start: (None, name) for name, start in model.starts.items()}
    waiting, rests = deque(came), 0
    while waiting:
        state = waiting.popleft()
        is_over = True
        for step in model.steps:
            for after in step.moves(state):
                is_over = is_over and (after == state or not step.is_due)
                if after not in came:
                    came[after] = (state, step.name)
                    waiting.append(after)
        rests += is_over
        rules = {**model.holds, **model.rests} if is_over else model.holds
        if broken := next((name for name, holds in rules.items() if not holds(state)), None):
            return Explored(len(came), rests, broken, _trace(came, state))
    return Explored(len(came), rests)


def _trace(came: Mapping[S, tuple[S | None, str]], state: S) -> tuple[str, ...]:
    names = list[str]()
    at: S | None = state
    while at is not None:
        at, name = came[at]
        names.append(name)
    return tuple(reversed(names))
