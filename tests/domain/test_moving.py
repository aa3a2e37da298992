"""A desk moves to another mode by a restart, once nothing of the old one is under way; a kill meanwhile wins."""

from datetime import timedelta
from typing import Any

import pytest

from domain.desk.applying import apply, finish_restart
from domain.desk.carried import Carried, Outcome
from domain.desk.commands import NewTerms
from domain.desk.states import CommandKind, Mode, State
from domain.desk.warnings import Topic, warn
from domain.trading.market import Observation
from tests.domain.builders import NOW, a_command, a_tick, an_observation, an_open_order
from tests.domain.test_terms import a_killed_desk, held

RESTART = CommandKind.RESTART
ACCOUNT = "1a2b3c"


def a_quiet_desk(**facts: Any) -> Carried:
    """Killed, every cancel confirmed, verified, and read since."""
    desk = a_killed_desk(**{"account": "", "observation": an_observation(observed_at=NOW), **facts})
    desk.cancels.remove(list(desk.cancels))
    return desk


def ask(desk: Carried, mode: Mode, account: str | None = ACCOUNT, **facts: Any) -> None:
    terms = NewTerms(mode=mode, account=account)
    apply(desk, a_command(RESTART, "r", kill_number=desk.kill_number, terms=terms, **facts), a_tick())


def moved(desk: Carried, mode: Mode, account: str | None = ACCOUNT, **facts: Any) -> Carried:
    ask(desk, mode, account, **facts)
    if desk.restart:
        finish_restart(desk, None, a_tick())
    return desk


def why(desk: Carried) -> str:
    assert (desk.state, desk.commands["r"].outcome) == (State.KILLED, Outcome.REFUSED)
    return desk.commands["r"].detail or ""


def test_a_desk_moves_and_forgets_what_it_read_at_the_old_venue() -> None:
    desk = a_quiet_desk(seen_symbols=["XRPUSDT"], cycle_number=7, recent_orders=[NOW], filled={"futures/BTCUSDT": 1})
    warn(desk, Topic.CLOCK, "the exchange's clock differs", "exchange")
    warn(desk, Topic.DISK, "little space", "/")
    limits, queued = desk.limits, len(desk.records)
    moved(desk, Mode.LIVE)
    assert (desk.state, desk.mode, desk.account, desk.kill) == (State.RUNNING, Mode.LIVE, ACCOUNT, None)
    assert (desk.observation, desk.seen_symbols, desk.recent_orders, desk.filled) == (None, [], [], {})
    assert desk.row_dirty, "the database's row names the mode"
    assert desk.hand_over, "the next run shows the mode in AisMode"
    assert [warning.topic for warning in desk.warnings] == [Topic.DISK]
    assert (desk.limits, desk.cycle_number, len(desk.records)) == (limits, 7, queued), "these stay"
    assert desk.last_decision
    assert f"mode paper -> live; account none -> {ACCOUNT}" in desk.last_decision.summary


def test_on_the_same_account_kills_still_reach_what_was_seen_there() -> None:
    desk = a_quiet_desk(mode=Mode.SHADOW, account=ACCOUNT, seen_symbols=["XRPUSDT"])
    assert moved(desk, Mode.LIVE).seen_symbols == ["XRPUSDT"]


@pytest.mark.parametrize(
    ("mode", "account"), [(Mode.LIVE, None), (Mode.LIVE, ""), (Mode.SHADOW, ""), (Mode.PAPER, None)]
)
def test_a_mode_without_its_account_is_refused(mode: Mode, account: str | None) -> None:
    old = Mode.LIVE if mode is Mode.PAPER else Mode.PAPER
    assert "needs the fingerprint of its account" in why(moved(a_quiet_desk(mode=old), mode, account))


def test_a_kill_that_is_not_verified_moves_nothing() -> None:
    assert "verified" in why(moved(a_quiet_desk(verified=False), Mode.SHADOW))


@pytest.mark.parametrize(
    "seen", [held("BTCUSDT", observed_at=NOW), an_observation(observed_at=NOW, open_orders=[an_open_order("BTCUSDT")])]
)
def test_what_stands_at_the_old_venue_is_left_there_only_if_a_person_says_so(seen: Observation) -> None:
    assert "open at the venue of mode paper: BTCUSDT" in why(moved(a_quiet_desk(observation=seen), Mode.SHADOW))
    assert moved(a_quiet_desk(observation=seen), Mode.SHADOW, with_positions=True).mode is Mode.SHADOW


@pytest.mark.parametrize("seen", [None, an_observation(observed_at=NOW - timedelta(seconds=1))])
def test_a_reading_from_before_the_kill_was_verified_proves_nothing(seen: Observation | None) -> None:
    assert "was not read since" in why(moved(a_quiet_desk(observation=seen), Mode.SHADOW))


@pytest.mark.parametrize(
    ("kind", "facts", "told"),
    [
        (CommandKind.CANCEL_ALL, {"symbols": None}, "cancels are not confirmed yet"),
        (CommandKind.DELEVERAGE, {"symbol": "BTCUSDT", "reduce_pct": 1}, "a deleverage is under way"),
    ],
)
def test_what_is_under_way_ends_in_the_mode_in_which_it_began(
    kind: CommandKind, facts: dict[str, Any], told: str
) -> None:
    """Before the restart, and while it is under way: then the desk stays killed under a new number, and is latched again."""
    desk = a_quiet_desk()
    apply(desk, a_command(kind, "c", **facts), a_tick())
    assert told in why(moved(desk, Mode.SHADOW, with_positions=True))
    desk = a_quiet_desk()
    ask(desk, Mode.SHADOW)
    apply(desk, a_command(kind, "c", **facts), a_tick())
    finish_restart(desk, None, a_tick())
    assert told in why(desk)
    assert (desk.mode, desk.kill_number, desk.latched) == (Mode.PAPER, 2, False)


def test_a_kill_beats_the_move() -> None:
    desk = a_quiet_desk()
    ask(desk, Mode.LIVE)
    apply(desk, a_command(CommandKind.KILL, "again"), a_tick())
    finish_restart(desk, None, a_tick())
    assert "a kill came" in why(desk)
    assert (desk.mode, desk.account, desk.latched) == (Mode.PAPER, "", False)


def test_a_restart_in_the_same_mode_needs_none_of_this() -> None:
    assert moved(a_killed_desk(observation=held("BTCUSDT")), Mode.PAPER, None).state is State.RUNNING
