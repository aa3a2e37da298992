"""The races themselves: who came first by the record, and a few trials on real servers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.evidence import Event
from tests.chaos.rounds import Arena, arena
from tests.races.races import RACES, Trial, asked_later, before_the_restart, continued, ended, recorded
from tests.races.running import run_races

TRIAL = Trial(7, began=10.0, ended=12.0, carried_out=True)


def signal(at: float, command_id: str) -> Event:
    return Event(0, 0, at, "signal", command_id.partition("-")[0], {"command_id": command_id})


def test_of_two_commands_that_one_is_first_which_the_history_has_first() -> None:
    history = [signal(9.0, "kill-6"), signal(10.1, "kill-7"), signal(10.2, "pause-7")]
    assert recorded("pause")(TRIAL, history) is True
    assert recorded("pause")(TRIAL, history[::-1]) is False
    assert recorded("pause")(TRIAL, history[:2]) is None


def test_a_kill_is_before_the_next_run_or_in_it() -> None:
    before, after = Event(0, 0, 9.0, "continued"), Event(0, 0, 11.0, "continued")
    assert continued(TRIAL, [before, signal(10.5, "kill-7"), after]) is True
    assert continued(TRIAL, [before, after, signal(11.5, "kill-7")]) is False
    assert continued(TRIAL, [before, signal(10.5, "kill-7")]) is None


def test_a_kill_is_before_the_end_of_a_process_or_after_it() -> None:
    assert ended(TRIAL, [signal(11.9, "kill-7")]) is True
    assert ended(TRIAL, [signal(12.1, "kill-7")]) is False
    assert ended(TRIAL, []) is None


def test_a_restart_clears_only_a_kill_that_was_recorded_when_it_was_asked_for() -> None:
    restart = signal(10.3, "restart-x")
    assert before_the_restart(TRIAL, [signal(10.1, "kill-7"), restart]) is True
    assert before_the_restart(TRIAL, [restart, signal(10.4, "kill-7")]) is False
    assert before_the_restart(TRIAL, [signal(10.1, "kill-7")]) is True
    assert asked_later(TRIAL, [signal(9.9, "kill-7"), restart])
    assert not asked_later(TRIAL, [signal(10.1, "kill-7"), restart])


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    async with arena(tmp_path_factory.mktemp("races")) as made:
        yield made


@pytest.mark.long
@pytest.mark.parametrize("race", RACES)
async def test_a_few_trials_hold(place: Arena, tmp_path: Path, race: str) -> None:
    (tally,) = await run_races(place, [RACES[race]], 4, tmp_path)
    assert not tally.wrong
    assert tally.trials == 4
