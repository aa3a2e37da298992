"""A restart may change a desk's terms, once its kill is verified."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.desk.applying import apply, finish_restart
from domain.desk.carried import Carried, Outcome
from domain.desk.commands import NewTerms
from domain.desk.payloads import RawPayload, read_command
from domain.desk.states import CommandKind, Mode, State
from domain.desk.status import status_of
from domain.desk.terms import changes, difference_text
from domain.risk.limits import Limits
from domain.trading.market import Observation, Position
from tests.domain.builders import NOW, a_command, a_desk, a_tick, an_observation

RESTART = CommandKind.RESTART


def a_killed_desk(verified: bool = True, **facts: Any) -> Carried:
    desk = a_desk(**facts)
    apply(desk, a_command(CommandKind.KILL, "k"), a_tick())
    desk.latched_number = desk.kill_number
    assert desk.kill
    desk.kill.row_written = True
    desk.kill.verified_at = NOW if verified else None
    return desk


def restarted(desk: Carried, **terms: Any) -> Carried:
    apply(desk, a_command(RESTART, "r", kill_number=desk.kill_number, terms=NewTerms(**terms)), a_tick())
    if desk.restart:
        finish_restart(desk, None, a_tick())
    return desk


def test_a_restart_takes_other_terms_and_says_which() -> None:
    limits = Limits(max_data_age_seconds=15.0)
    desk = a_killed_desk(symbols=["BTCUSDT", "ETHUSDT"], cycle_seconds=5.0, limits=limits)
    restarted(desk, symbols=["BTCUSDT", "SOLUSDT"], cycle_seconds=60.0, kill_flattens=True)
    assert (desk.state, desk.symbols, desk.cycle_seconds, desk.kill_flattens) == (
        State.RUNNING, ["BTCUSDT", "SOLUSDT"], 60.0, True,
    )  # fmt: skip
    assert desk.last_decision
    told = "symbols BTCUSDT,ETHUSDT -> BTCUSDT,SOLUSDT; cycle_seconds 5 -> 60; kill_flattens false -> true"
    assert f"{told}; max_data_age_seconds 15 -> 180" in desk.last_decision.summary
    assert desk.row_dirty, "the database's row names the symbols"


def test_what_leaves_the_whitelist_is_still_killed_and_canceled() -> None:
    desk = restarted(a_killed_desk(symbols=["BTCUSDT", "ETHUSDT"]), symbols=["BTCUSDT"])
    apply(desk, a_command(CommandKind.KILL, "again"), a_tick())
    assert {cancel.symbol for cancel in desk.cancels} == {"BTCUSDT", "ETHUSDT"}


def test_a_symbol_that_comes_back_is_whitelisted_once() -> None:
    desk = restarted(a_killed_desk(symbols=["BTCUSDT"], seen_symbols=["ETHUSDT"]), symbols=["ETHUSDT"])
    assert (desk.symbols, desk.seen_symbols) == (["ETHUSDT"], ["BTCUSDT"])


@pytest.mark.parametrize(("age", "then"), [("15", "180"), ("20", "20")])
def test_the_age_of_data_follows_the_cycle_where_it_was_three_cycles(age: str, then: str) -> None:
    limits = Limits(max_data_age_seconds=float(age))
    desk = restarted(a_killed_desk(limits=limits, cycle_seconds=5.0), cycle_seconds=60.0)
    assert Decimal(str(desk.limits.max_data_age_seconds)) == Decimal(then)


def test_without_a_verified_kill_only_the_desks_own_terms_are_taken() -> None:
    desk = restarted(a_killed_desk(verified=False), symbols=["SOLUSDT"])
    assert (desk.state, desk.commands["r"].outcome) == (State.KILLED, Outcome.REFUSED)
    assert "verified" in (desk.commands["r"].detail or "")
    desk = a_killed_desk(verified=False)
    assert restarted(desk, symbols=desk.symbols).state is State.RUNNING


def test_in_shadow_there_is_nothing_to_verify() -> None:
    assert restarted(a_killed_desk(verified=False, mode=Mode.SHADOW), symbols=["SOLUSDT"]).symbols == ["SOLUSDT"]


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ('"cycle_seconds": 0', "cycle_seconds must be a number from 0.1 to 86400"),
        # Above 0 as a Decimal, and 0.0 as the number that would be carried: no run could read it again.
        ('"cycle_seconds": 1e-400', "cycle_seconds must be a number from 0.1 to 86400"),
        ('"cycle_seconds": true', "cycle_seconds must be a number from 0.1 to 86400"),
        ('"cycle_seconds": "5"', "cycle_seconds must be a number from 0.1 to 86400"),
        ('"cycle_seconds": 1e999', "cycle_seconds must be a number from 0.1 to 86400"),
        ('"mode": "real"', "mode must be one of"),
        ('"kill_flattens": 1', "kill_flattens must be true or false"),
        ('"symbols": []', "symbols must be a list of at least one symbol"),
    ],
)
def test_a_field_that_is_no_term_is_refused_with_a_reason(field: str, why: str) -> None:
    payload = RawPayload("json/plain", f'{{"kill_number": 1, {field}}}'.encode())
    assert why in (read_command(RESTART, [payload], "c").problem or "")


def test_terms_that_are_the_desks_own_change_nothing() -> None:
    now = {"symbols": ["BTCUSDT"], "cycle_seconds": 5.0, "kill_flattens": False, "max_data_age_seconds": 15.0}
    assert changes(now, NewTerms(symbols=["BTCUSDT"], cycle_seconds=5.0)) == []


def test_the_account_changes_with_the_mode_alone() -> None:
    desk = restarted(a_killed_desk(mode=Mode.LIVE, account="a"), account="b")
    assert (desk.state, desk.commands["r"].outcome) == (State.KILLED, Outcome.REFUSED)
    assert "another account needs a new desk" in (desk.commands["r"].detail or "")
    assert restarted(a_killed_desk(mode=Mode.LIVE), mode=Mode.LIVE).state is State.RUNNING


def held(symbol: str, **facts: Any) -> Observation:
    position = Position(symbol=symbol, quantity=Decimal(1), entry_price=Decimal(1), mark_price=Decimal(1))
    return an_observation(positions=[position], **facts)


def test_on_paper_a_symbol_with_a_position_does_not_leave() -> None:
    desk = a_killed_desk(symbols=["BTCUSDT", "ETHUSDT"], observation=held("ETHUSDT"))
    assert restarted(desk, symbols=["BTCUSDT"]).state is State.KILLED
    assert "close the position of ETHUSDT first" in (desk.commands["r"].detail or "")


def test_what_leaves_is_covered_for_as_long_as_something_stands_in_it() -> None:
    """Lists that change again and again must not fill the room for symbols that are really held."""
    facts: dict[str, Any] = {"symbols": ["BTCUSDT", "ETHUSDT"], "seen_symbols": ["XRPUSDT"], "mode": Mode.LIVE}
    desk = restarted(a_killed_desk(**facts, observation=held("ETHUSDT", observed_at=NOW)), symbols=["SOLUSDT"])
    assert (desk.symbols, desk.seen_symbols) == (["SOLUSDT"], ["ETHUSDT"])
    before = held("ETHUSDT", observed_at=NOW - timedelta(seconds=1))
    desk = restarted(a_killed_desk(**facts, observation=before), symbols=["SOLUSDT"])
    assert desk.seen_symbols == ["BTCUSDT", "ETHUSDT", "XRPUSDT"], (
        "read before the kill was verified: it proves nothing"
    )


@pytest.mark.parametrize(
    ("terms", "command"),
    [
        ({"cycle_seconds": 1.0}, "kill it, then `ais restart --from-settings`"),
        ({"symbols": ["BTCUSDT", "ETHUSDT", "SOLUSDT"]}, "pause it, then `ais symbols add SOLUSDT`"),
        (
            {"symbols": ["BTCUSDT", "ETHUSDT", "SOLUSDT"], "cycle_seconds": 1.0},
            "kill it, then `ais restart --from-settings`",
        ),
        ({"symbols": ["ETHUSDT", "BTCUSDT"]}, "kill it, then `ais restart --from-settings`"),
        ({"mode": Mode.LIVE}, "kill it, then `ais restart --from-settings --mode live`, with a worker of that mode up"),
    ],
)
def test_whose_settings_differ_says_so_and_names_the_command_that_adopts_them(
    terms: dict[str, Any], command: str
) -> None:
    desk = a_desk(symbols=["BTCUSDT", "ETHUSDT"], cycle_seconds=5.0, mode=Mode.PAPER)
    told = difference_text(status_of(desk, "run"), NewTerms(**terms)) or ""
    assert told.startswith("the settings differ from what the desk has: ")
    assert told.endswith(f"The desk keeps its own; to adopt these: {command}")


def test_settings_that_are_the_desks_own_are_worth_no_word() -> None:
    desk = a_desk(symbols=["BTCUSDT"], cycle_seconds=5.0)
    assert (
        difference_text(status_of(desk, "run"), NewTerms(mode=desk.mode, symbols=["BTCUSDT"], cycle_seconds=5.0))
        is None
    )
    assert difference_text(status_of(desk, "run"), NewTerms()) is None
