"""The transition table, walked in full."""

import itertools

import pytest

from domain.desk.applying import apply
from domain.desk.states import CommandKind, State, transition
from tests.domain.builders import a_command, a_desk, a_tick

PAIRS = list(itertools.product(State, CommandKind))


@pytest.mark.parametrize(("state", "kind"), PAIRS)
def test_every_state_answers_every_command(state: State, kind: CommandKind) -> None:
    assert transition(state, kind).state in State


@pytest.mark.parametrize("kind", CommandKind)
def test_only_a_restart_leads_out_of_killed(kind: CommandKind) -> None:
    expected = State.RUNNING if kind is CommandKind.RESTART else State.KILLED
    assert transition(State.KILLED, kind).state is expected


@pytest.mark.parametrize("state", State)
def test_a_kill_kills_from_every_state(state: State) -> None:
    assert transition(state, CommandKind.KILL).state is State.KILLED


@pytest.mark.parametrize(("first", "second"), list(itertools.product(CommandKind, CommandKind)))
def test_no_two_commands_after_a_kill_lead_out_of_it(first: CommandKind, second: CommandKind) -> None:
    desk = a_desk()
    apply(desk, a_command(CommandKind.KILL), a_tick())
    for kind in (first, second):
        apply(desk, a_command(kind, symbol="BTCUSDT", reduce_pct=1, kill_number=1), a_tick())
    assert desk.state is State.KILLED
