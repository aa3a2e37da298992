"""What people read holds nothing that steers their terminal."""

import unicodedata
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.desk.applying import apply, unknown_signal
from domain.desk.details import details
from domain.desk.enforcing import flatten
from domain.desk.killing import residue
from domain.desk.states import CommandKind
from domain.desk.status import status_of
from domain.values import digits, printable, printable_lines
from tests.domain.builders import a_command, a_desk, a_position, a_tick, an_observation

ESCAPE, RIGHT_TO_LEFT, CSI, ZERO_WIDTH = "\x1b", "\u202e", "\x9b", "\u200b"
NASTY = f"stop{ESCAPE}[2J{CSI}31m {RIGHT_TO_LEFT}abc{ZERO_WIDTH}\x07\nstate RUNNING"


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys_or_that_nobody_sees(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_breaks_become_blanks_so_that_no_line_is_forged() -> None:
    assert printable("a\nb\tc\u2028d") == "a b c d"
    assert printable_lines("a\x1b[1m\nb") == "a[1m\nb"


def test_a_kills_reason_reaches_status_details_and_log_without_it() -> None:
    desk = a_desk()
    kill = a_command(CommandKind.KILL, "k-1", reason=NASTY).model_copy(update={"actor": f"x{ESCAPE}]0;"})
    apply(desk, kill, a_tick())
    unknown_signal(desk, f"kil{ESCAPE}[1m", a_tick())
    status = status_of(desk, "run")
    assert status.kill
    told = [
        status.reason,
        status.actor,
        status.kill.reason,
        status.kill.actor,
        *status.warnings,
        desk.records[0].summary,
    ]
    for text in [*told, *details(desk).split("\n")]:
        assert text == printable(text)


@pytest.mark.parametrize("quantity", ["1E+23", "1E+150", "-1E+999999", "1E-999999"])
def test_no_number_of_a_venue_fails_a_task_that_shows_it(quantity: str) -> None:
    """A doubtful position of 1E+150 beside a kill that flattens failed the workflow task, and every try of it."""
    desk = a_desk(kill_flattens=True)
    apply(desk, a_command(CommandKind.KILL, "k"), a_tick())
    reading = an_observation(positions=[a_position(quantity)], doubts=["two lists contradict each other"])
    assert not flatten(desk, reading, a_tick())
    assert any(left.startswith(("position of", "dust of BTCUSDT")) for left in residue(desk))
    assert details(desk)
    assert status_of(desk, "run").model_dump_json()
    assert digits(Decimal(quantity))
