"""Symbols join a paused desk once the venue has shown that it knows them."""

from typing import Any

import pytest

from domain.desk.applying import apply, finish_addition
from domain.desk.carried import Carried, Outcome
from domain.desk.payloads import RawPayload, read_command
from domain.desk.states import CommandKind, State
from domain.desk.status import outcome_of, status_of
from domain.trading.market import Observation
from tests.domain.builders import a_command, a_desk, a_tick, an_observation, some_rules

ADD = CommandKind.ADD_SYMBOLS
SEEN = an_observation(rules={name: some_rules(name) for name in ("BTCUSDT", "SOLUSDT", "XRPUSDT")})


def a_paused_desk(**facts: Any) -> Carried:
    desk = a_desk(**{"symbols": ["BTCUSDT"], **facts})
    apply(desk, a_command(CommandKind.PAUSE, "p"), a_tick())
    return desk


def ask(desk: Carried, *symbols: str, name: str = "a") -> None:
    apply(desk, a_command(ADD, name, symbols=list(symbols), reason="listed"), a_tick())


def added(desk: Carried, *symbols: str, reading: Observation | str = SEEN) -> Carried:
    ask(desk, *symbols)
    if desk.addition:
        finish_addition(desk, reading, a_tick())
    return desk


def refused(desk: Carried, name: str = "a") -> str:
    assert (desk.symbols, desk.commands[name].outcome) == (["BTCUSDT"], Outcome.REFUSED)
    assert desk.records[-1].result == "refused"
    return desk.commands[name].detail or ""


def test_a_paused_desk_takes_symbols_that_the_venue_knows() -> None:
    desk = added(a_paused_desk(seen_symbols=["SOLUSDT", "XRPUSDT"]), "BTCUSDT", "SOLUSDT")
    assert (desk.state, desk.symbols, desk.seen_symbols) == (State.PAUSED, ["BTCUSDT", "SOLUSDT"], ["XRPUSDT"])
    assert desk.row_dirty, "the database's row names the symbols"
    row, told = desk.records[-1], "symbols BTCUSDT -> BTCUSDT,SOLUSDT"
    assert row.summary == f"add_symbols applied by test: {told} (listed)"
    assert (row.command, row.result) == ("add_symbols", "applied")
    outcome = outcome_of(desk.commands["a"])
    assert outcome is not None
    assert (outcome.detail, outcome.symbols, outcome.cancel_instructions) == (told, desk.symbols, None)
    apply(desk, a_command(CommandKind.KILL, "k"), a_tick())
    assert {cancel.symbol for cancel in desk.cancels} == {"BTCUSDT", "SOLUSDT", "XRPUSDT"}


def test_until_the_venue_has_answered_it_is_pending() -> None:
    desk = a_paused_desk()
    ask(desk, "SOLUSDT")
    assert (desk.symbols, desk.commands["a"].outcome) == (["BTCUSDT"], Outcome.PENDING)
    assert status_of(desk, "run").commands_pending == 1
    ask(desk, "XRPUSDT", name="b")
    assert "other symbols are being added" in refused_of(desk, "b")


def refused_of(desk: Carried, name: str) -> str:
    assert desk.commands[name].outcome is Outcome.REFUSED
    return desk.commands[name].detail or ""


def test_symbols_that_the_desk_has_change_nothing() -> None:
    desk = added(a_paused_desk(), "BTCUSDT")
    assert (desk.commands["a"].outcome, desk.commands["a"].repeated, desk.addition) == (Outcome.APPLIED, True, None)


def test_a_symbol_that_the_venue_does_not_know_is_refused() -> None:
    assert "the venue has no rules for DOGEUSDT; on paper its worker" in refused(
        added(a_paused_desk(), "SOLUSDT", "DOGEUSDT")
    )
    assert "could not be read: it is down" in refused(added(a_paused_desk(), "SOLUSDT", reading="it is down"))


@pytest.mark.parametrize(
    ("state", "told"), [(State.RUNNING, "pause it first"), (State.KILLED, "at the restart: `ais restart --symbols`")]
)
def test_only_a_paused_desk_takes_symbols(state: State, told: str) -> None:
    desk = a_desk(symbols=["BTCUSDT"], state=state)
    ask(desk, "SOLUSDT")
    assert told in refused(desk)


@pytest.mark.parametrize("then", [["resume"], ["kill"], ["resume", "pause", "kill"]])
def test_a_command_that_came_meanwhile_beats_the_addition(then: list[str]) -> None:
    desk = a_paused_desk()
    ask(desk, "SOLUSDT")
    for number, kind in enumerate(then):
        apply(desk, a_command(CommandKind(kind), f"{number}"), a_tick())
    finish_addition(desk, SEEN, a_tick())
    assert "is no longer paused" in refused(desk)


def test_a_kill_that_takes_the_id_of_an_addition_keeps_its_outcome() -> None:
    desk = a_paused_desk()
    ask(desk, "SOLUSDT", name="x")
    apply(desk, a_command(CommandKind.KILL, "x"), a_tick())
    finish_addition(desk, SEEN, a_tick())
    assert (desk.commands["x"].kind, desk.commands["x"].outcome) == (CommandKind.KILL, Outcome.APPLIED)
    assert "add_symbols refused" in desk.records[-1].summary


class Compared(str):
    """A symbol that counts how often it is compared with another."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Compared.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_long_list_of_symbols_costs_no_more_per_symbol_than_a_short_one() -> None:
    """10,000 of them took a new worker longer than a workflow task may: 40,000 comparisons each."""
    desk = a_paused_desk()
    desk.symbols = [Compared(f"S{number}USDT") for number in range(100)]
    ask(desk, *(f"N{number}USDT" for number in range(100)))
    assert desk.addition is not None
    assert len(desk.addition.symbols) == 100
    assert Compared.compared < 1_000


@pytest.mark.parametrize("text", ["{}", '{"symbols": []}', '{"symbols": "SOLUSDT"}', '{"symbols": null}'])
def test_what_names_no_symbol_is_refused_in_words(text: str) -> None:
    problem = read_command(ADD, [RawPayload("json/plain", text.encode())], "c").problem or ""
    assert "symbols" in problem
    desk = a_paused_desk()
    apply(desk, read_command(ADD, [RawPayload("json/plain", text.encode())], "c"), a_tick())
    refused(desk, "c")


def test_a_desk_has_two_hundred_symbols_at_most() -> None:
    desk = a_paused_desk(symbols=[f"S{number}USDT" for number in range(200)])
    ask(desk, "SOLUSDT")
    assert "a desk has 200 at most" in refused_of(desk, "a")
