"""The states of a coordinator and the table of their transitions.

The incident behind this file: in a system we measured, a pause after a kill brought trading back, because the flag `paused`
overwrote the flag `killed`. Here the only way from one state to another is a row of this table.
"""

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """What the coordinator is doing. Only `RUNNING` may lead to new risk."""

    RUNNING = "running"
    PAUSED = "paused"
    KILLED = "killed"


class Mode(StrEnum):
    """Where instructions go: the built-in venue, nowhere (prepared only), or the real venue."""

    PAPER = "paper"
    SHADOW = "shadow"
    LIVE = "live"


class CommandKind(StrEnum):
    """The commands of an operator; the value is the name of the Temporal signal."""

    PAUSE = "pause"
    RESUME = "resume"
    KILL = "kill"
    CANCEL_ALL = "cancel_all"
    DELEVERAGE = "deleverage"
    RESTART = "restart"
    SET_LIMITS = "set_limits"
    ADD_SYMBOLS = "add_symbols"
    PROPOSE = "propose"


class Transition(NamedTuple):
    """The state after a command, and a refusal if the state does not allow the command."""

    state: State
    refusal: str | None = None


KILLED_REFUSAL = "The coordinator is killed; only a manual restart brings it back."
PAUSED_REFUSAL = "The coordinator is paused; it takes no proposals until it is resumed."
ADDS_PAUSED_REFUSAL = "Symbols are added while the coordinator is paused; pause it first."
ADDS_KILLED_REFUSAL = "The coordinator is killed; name its new symbols at the restart: `ais restart --symbols`."
NOT_KILLED_REFUSAL = "The coordinator is not killed; there is nothing to restart."

_TABLE: dict[tuple[State, CommandKind], Transition] = {
    (State.RUNNING, CommandKind.PAUSE): Transition(State.PAUSED),
    (State.RUNNING, CommandKind.RESUME): Transition(State.RUNNING),
    (State.RUNNING, CommandKind.KILL): Transition(State.KILLED),
    (State.RUNNING, CommandKind.CANCEL_ALL): Transition(State.RUNNING),
    (State.RUNNING, CommandKind.DELEVERAGE): Transition(State.RUNNING),
    (State.RUNNING, CommandKind.RESTART): Transition(State.RUNNING, NOT_KILLED_REFUSAL),
    (State.RUNNING, CommandKind.SET_LIMITS): Transition(State.RUNNING),
    (State.RUNNING, CommandKind.ADD_SYMBOLS): Transition(State.RUNNING, ADDS_PAUSED_REFUSAL),
    (State.RUNNING, CommandKind.PROPOSE): Transition(State.RUNNING),
    (State.PAUSED, CommandKind.PAUSE): Transition(State.PAUSED),
    (State.PAUSED, CommandKind.RESUME): Transition(State.RUNNING),
    (State.PAUSED, CommandKind.KILL): Transition(State.KILLED),
    (State.PAUSED, CommandKind.CANCEL_ALL): Transition(State.PAUSED),
    (State.PAUSED, CommandKind.DELEVERAGE): Transition(State.PAUSED),
    (State.PAUSED, CommandKind.RESTART): Transition(State.PAUSED, NOT_KILLED_REFUSAL),
    (State.PAUSED, CommandKind.SET_LIMITS): Transition(State.PAUSED),
    (State.PAUSED, CommandKind.ADD_SYMBOLS): Transition(State.PAUSED),
    (State.PAUSED, CommandKind.PROPOSE): Transition(State.PAUSED, PAUSED_REFUSAL),
    (State.KILLED, CommandKind.PAUSE): Transition(State.KILLED, KILLED_REFUSAL),
    (State.KILLED, CommandKind.RESUME): Transition(State.KILLED, KILLED_REFUSAL),
    (State.KILLED, CommandKind.KILL): Transition(State.KILLED),
    (State.KILLED, CommandKind.CANCEL_ALL): Transition(State.KILLED),
    (State.KILLED, CommandKind.DELEVERAGE): Transition(State.KILLED),
    # Only once the latch in the database is cleared: see `finish_restart` in `domain/desk/applying.py`.
    (State.KILLED, CommandKind.RESTART): Transition(State.RUNNING),
    (State.KILLED, CommandKind.SET_LIMITS): Transition(State.KILLED),
    (State.KILLED, CommandKind.ADD_SYMBOLS): Transition(State.KILLED, ADDS_KILLED_REFUSAL),
    (State.KILLED, CommandKind.PROPOSE): Transition(State.KILLED, KILLED_REFUSAL),
}


def transition(state: State, kind: CommandKind) -> Transition:
    """The row of the table. Raises KeyError, with both names, for a pair that is not in it."""
    return _TABLE[state, kind]
