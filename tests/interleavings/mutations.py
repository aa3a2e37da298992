"""Ways to be wrong that random programs have to see, each a change of one function or one number."""

from collections.abc import Callable
from typing import Any

import pytest

from domain.desk import ahead, applying, cycle, killing, states
from domain.desk.carried import Carried
from domain.desk.open_cancels import OpenCancels
from domain.desk.states import CommandKind, State, Transition
from domain.trading.instructions import CANCEL_TOOLS
from tests.interleavings import rehearsal


def _resume_leads_out_of_killed(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(states._TABLE, (State.KILLED, CommandKind.RESUME), Transition(State.RUNNING))


def _a_paused_desk_trades(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cycle, "takes_risk", lambda c, outside: outside.latch_read and c.state is not State.KILLED)


def _a_kill_cancels_one_market(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(killing, "CANCEL_TOOLS", CANCEL_TOOLS[:1])


def _a_command_id_is_not_remembered(patch: pytest.MonkeyPatch) -> None:
    apply = applying.apply

    def forgets(c: Carried, command: Any, tick: Any) -> None:
        c.commands.pop(command.command_id, None)
        apply(c, command, tick)

    patch.setattr(applying, "apply", forgets)


def _the_next_run_has_no_cancels(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rehearsal, "pack", lambda c, *_: c.model_copy(update={"cancels": OpenCancels()}))


def _a_choice_ahead_is_used_whatever_came_since(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ahead, "_everything", lambda c, facts: ())


MUTATIONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "resume leads out of killed": _resume_leads_out_of_killed,
    "a paused desk trades": _a_paused_desk_trades,
    "a kill cancels one market only": _a_kill_cancels_one_market,
    "a choice ahead is used whatever came since": _a_choice_ahead_is_used_whatever_came_since,
    "a command id is not remembered": _a_command_id_is_not_remembered,
    "the next run has no cancels": _the_next_run_has_no_cancels,
}
