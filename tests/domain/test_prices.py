"""What each kind of signal costs, at its dearest: a workflow task that takes too long is tried again for ever."""

import pytest

from domain.desk.arrivals import TURN_SIGNALS, Arrivals
from domain.desk.states import CommandKind
from tests.domain.queues import KINDS, SIGNALS, calls, price_of_a_queue, says

# A workflow task has 7.5 s, and a call with what it does takes about a microsecond: `make bench` takes the time.
ALLOWED_CALLS = 3_750_000


# A killed desk carries out kills and changes of limits; the rest it refuses, which costs less than to carry it out.
CARRIED_OUT = [kind for kind in KINDS if "kill" in kind or "limit" in kind]
DEAR = [("running", kind) for kind in KINDS] + [("killed", kind) for kind in CARRIED_OUT]
CHEAP = [pytest.param("killed", kind, marks=pytest.mark.thorough) for kind in KINDS if kind not in CARRIED_OUT]


@pytest.mark.parametrize(("state", "kind"), [*DEAR, *CHEAP])
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
