"""Any program of a desk: what must hold holds after every step of it, and the desk comes to rest."""

from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from domain.desk import killing
from domain.desk.carried import Carried
from tests.interleavings.bounds import BOUNDS, COPIES, UNWRITTEN
from tests.interleavings.machines import CommandMachine, CycleMachine, checked
from tests.interleavings.mutations import MUTATIONS
from tests.interleavings.programs import a_program
from tests.interleavings.rehearsal import Rehearsal

LONG = pytest.mark.long


@pytest.mark.parametrize(("examples", "steps"), [(12, 25), pytest.param(1_500, 60, marks=LONG)])
@pytest.mark.parametrize("machine", [CommandMachine, CycleMachine])
def test_no_order_of_events_breaks_what_must_hold(
    machine: type[RuleBasedStateMachine], examples: int, steps: int
) -> None:
    run_state_machine_as_test(machine, settings=checked(examples, steps))


@pytest.mark.parametrize(("seeds", "length"), [(8, 200), pytest.param(1_000, 400, marks=LONG)])
def test_long_programs_come_to_rest(seeds: int, length: int) -> None:
    """Each in all its parts: what one run did is done again by a replay, and carried over by the next."""
    for seed in range(seeds):
        desk, _ = a_program(seed, length, kill_flattens=seed % 3 == 0, mode="shadow" if seed % 7 == 6 else "paper")
        desk.step(["crash"])
        desk.settle()


def _some_programs() -> None:
    for seed in range(20):
        a_program(seed, 150)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    with pytest.raises(AssertionError):
        _some_programs()


def _a_flood(name: str, count: int, facts: dict[str, Any]) -> Rehearsal:
    """The venue refuses every cancel, and nothing is written."""
    desk, lane = Rehearsal(), "cancel/cancel_all_orders/BTCUSDT"
    for number in range(count):
        desk.step(["turn", [[name, {"command_id": f"f{number}", **facts}]]])
        desk.step(["begin", lane])
        if number % 3 == 2:
            desk.step(["end", lane, "away"])
    return desk


@pytest.mark.parametrize(
    ("name", "count", "facts"),
    [
        ("kill", 60, {}),
        ("cancel_all", 60, {}),
        ("deleverage", 105, {"symbol": "BTCUSDT", "reduce_pct": 1}),
        ("propose", 105, {"agent_id": "a", "symbol": "BTCUSDT", "side": "BUY", "confidence": 0.5}),
    ],
)
def test_a_flood_stays_within_its_bounds(name: str, count: int, facts: dict[str, Any]) -> None:
    desk = _a_flood(name, count, facts)
    assert len(desk.run.c.commands) == count
    desk.settle()


def test_a_flood_without_a_bound_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(killing, "MAX_OPEN_CANCELS_PER_LANE", 1_000)
    with pytest.raises(AssertionError, match="too many"):
        _a_flood("kill", 60, {})


def test_every_collection_of_the_carried_state_has_its_bound() -> None:
    state = Rehearsal().run.c
    collections = {name for name in Carried.model_fields if hasattr(getattr(state, name), "__len__")}
    collections -= {name for name in collections if isinstance(getattr(state, name), str)}
    assert collections == {*BOUNDS, *UNWRITTEN}
    assert {*COPIES} <= set(Carried.model_fields)
