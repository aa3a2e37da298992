"""The protocol of latch, restart, order and outbox as two small models: every interleaving holds, and a mutation is seen."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from operator import attrgetter
from typing import Any

import pytest

from tests.interleavings import latch_model, order_model
from tests.interleavings.explore import Model, explore

LONG = pytest.mark.long
MODELS: tuple[Model[Any], ...] = (order_model.order_model(), latch_model.latch_model())
# How many commands, crashes and lost messages. All at once take half a minute.
FAULTS = [
    (2, 0, 1),
    (1, 1, 1),
    # Two thirds of the states. Every fault of `latch_model.WRONGS` that these find, one of the two above finds too.
    pytest.param((2, 1, 0), marks=pytest.mark.thorough),
    pytest.param((2, 1, 1), marks=LONG),
]


def _code() -> Iterator[str]:
    for model in MODELS:
        for step in model.steps:
            yield from step.code


@pytest.mark.parametrize("place", sorted({*_code()}))
def test_the_function_that_a_step_stands_for_exists(place: str) -> None:
    """A function that was renamed or moved: look whether the model's step still does what it does."""
    module, name = place.split(":")
    assert callable(attrgetter(name)(import_module(module)))


@pytest.mark.parametrize(("commands", "crashes", "losses"), [(2, 1, 1), pytest.param(3, 1, 2, marks=LONG)])
def test_no_interleaving_of_an_order_and_commands_breaks_what_must_hold(
    commands: int, crashes: int, losses: int
) -> None:
    start = order_model.OrderWorld(commands=commands, crashes=crashes, losses=losses)
    found = explore(replace(order_model.order_model(), starts={"a desk has decided on an order": start}))
    assert found.broken is None, found
    assert found.states > 4_000
    assert found.rests


@pytest.mark.parametrize("faults", FAULTS)
def test_no_interleaving_of_kills_and_restarts_breaks_what_must_hold(faults: tuple[int, int, int]) -> None:
    commands, crashes, losses = faults
    starts = {
        name: world._replace(commands=commands, crashes=crashes, losses=losses)
        for name, world in latch_model.STARTS.items()
    }
    found = explore(replace(latch_model.latch_model(), starts=starts))
    assert found.broken is None, found
    assert found.states > 10_000
    assert found.rests


@pytest.mark.parametrize("wrong", order_model.WRONGS)
def test_a_mutation_of_the_order_is_seen(wrong: str) -> None:
    found = explore(order_model.order_model(wrong))
    assert (found.broken or "").startswith(order_model.WRONGS[wrong]), found


@pytest.mark.parametrize("wrong", latch_model.WRONGS)
def test_a_mutation_of_the_latch_is_seen(wrong: str) -> None:
    found = explore(latch_model.latch_model(wrong))
    assert (found.broken or "").startswith(latch_model.WRONGS[wrong]), found


def test_the_trace_of_a_fault_is_the_shortest_way_there() -> None:
    assert explore(order_model.order_model(order_model.SENT_BEFORE_COMMIT)).trace == (
        "a desk has decided on an order",
        "the cycle asks for its decision to be written",
        "a worker reads the latch for the order",
        "a worker asks the coordinator for the order",
        "a worker sends the order",
    )
    assert explore(latch_model.latch_model(latch_model.REFUSES_EQUAL)).trace == (
        "a desk runs again after a kill",
        "Temporal's store comes back old",
        "a command is recorded",
        "the coordinator takes its signals",
        "a write of the latch begins",
        "the latch is written",
    )
    assert explore(latch_model.latch_model(latch_model.BELIEVES)).trace == (
        "a desk runs again, and Temporal may come back from when the kill was not latched",
        "Temporal's store comes back old",
        "a write of the latch begins",
        "the latch is written",
        "the coordinator hears of the latch",
    )
