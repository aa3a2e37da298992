"""What each kind of signal costs, at its dearest: a workflow task that takes too long is tried again for ever."""

import pytest

from domain.desk.arrivals import TURN_SIGNALS, Arrivals
from domain.desk.states import CommandKind
from tests.domain.queues import KINDS, SIGNALS, calls, price_of_a_queue, says

# A workflow task has 7.5 s, and a call with what it does takes about a microsecond: `make bench` takes the time.
ALLOWED_CALLS = 3_750_000


# A killed desk also carries out changes of limits; all else but kills it refuses, which costs less than to carry it out. And the
# first kill of a queue kills the desk, so that a running one takes the others as a killed one does.
DEAREST_OF_A_KILLED_DESK = ["limits", "many unknown limits"]
# Each goes the way of another kind that costs as much or more: the same with more to read, or in another spelling.
LIKE_OTHERS = [
    "a kill", "a kill in an unknown encoding", "cancel_all", "an unknown limit",
    "an unknown signal with a long name", "a kill with many brackets", "symbols to add",
]  # fmt: skip
THOROUGH = pytest.mark.thorough
RUNNING = [pytest.param("running", kind, marks=[THOROUGH] if kind in LIKE_OTHERS else []) for kind in KINDS]
KILLED = [pytest.param("killed", kind, marks=[] if kind in DEAREST_OF_A_KILLED_DESK else [THOROUGH]) for kind in KINDS]
# Only a paused desk looks at what it is to add.
PAUSED = [pytest.param("paused", "symbols to add")]


@pytest.mark.parametrize(("state", "kind"), [*RUNNING, *KILLED, *PAUSED])
def test_a_full_queue_of_each_kind_takes_half_of_the_allowance_at_most(state: str, kind: str) -> None:
    """A run that cannot be replayed within a workflow task's time-out is tried again for ever."""
    assert price_of_a_queue(kind, state, calls) < ALLOWED_CALLS


def test_kills_have_the_first_turn_whatever_came_before_them() -> None:
    arrivals = Arrivals()
    for _ in range(SIGNALS):
        arrivals.add(*says("pause"))
    arrivals.add(*says("kill"))
    kinds = [arrival.kind for arrival in arrivals.turn()]
    assert (kinds[0], len(kinds), len(arrivals)) == (CommandKind.KILL, TURN_SIGNALS, SIGNALS + 1 - TURN_SIGNALS)
