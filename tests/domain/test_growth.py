"""Positions that grew after a kill: told as long as they are larger, and closed by a kill that flattens."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.desk.applying import apply, finish_restart
from domain.desk.carried import Carried, GrownPosition, OrderPhase
from domain.desk.enforcing import flatten, flattening
from domain.desk.growth import GREW
from domain.desk.killing import verify, verifying
from domain.desk.observing import take_observation
from domain.desk.ordering import order_of, take_report
from domain.desk.outbox import cancels_begun, cancels_confirmed, order_prepared
from domain.desk.states import CommandKind, Mode
from domain.desk.status import status_of
from domain.trading.decisions import DecisionType
from domain.trading.market import Market, Observation
from domain.trading.orders import Fate, OrderReport
from tests.domain.builders import BTC, ETH, NOW, a_command, a_desk, a_position, a_tick, an_observation, an_open_order
from tests.domain.test_killing import chosen

D = Decimal
LATER = NOW + timedelta(seconds=9)


def holding(**quantities: str) -> Observation:
    return an_observation(positions=[a_position(quantity, symbol) for symbol, quantity in quantities.items()])


def later(**quantities: str) -> Observation:
    return holding(**quantities).model_copy(update={"observed_at": LATER})


def killed(before: Observation | None, **changes: Any) -> Carried:
    desk = a_desk(**{"symbols": [BTC, ETH]} | changes)
    if before:
        take_observation(desk, before, 0, a_tick())
    apply(desk, a_command(CommandKind.KILL, "k"), a_tick())
    return desk


def confirm(desk: Carried) -> None:
    ids = [cancel.instruction_id for cancel in desk.cancels]
    cancels_begun(desk, ids)
    cancels_confirmed(desk, ids, NOW)


def grown(desk: Carried) -> list[tuple[str, D, D]]:
    kill = status_of(desk, "run").kill
    assert kill
    return [(g.symbol, g.before, g.now) for g in kill.grown]


def rows(desk: Carried) -> list[str]:
    return [row.summary for row in desk.records if row.decision_type is DecisionType.RISK_ACTION]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {BTC: "0.5"}, [(BTC, D(0), D("0.5"))]),
        ({BTC: "1"}, {BTC: "1.5"}, [(BTC, D(1), D("1.5"))]),
        ({BTC: "-1"}, {BTC: "-1.5"}, [(BTC, D(-1), D("-1.5"))]),
        ({BTC: "1"}, {BTC: "-1.5"}, [(BTC, D(1), D("-1.5"))]),
        ({BTC: "1", ETH: "2"}, {BTC: "1", ETH: "2"}, []),
        ({BTC: "1"}, {BTC: "0.5"}, []),
        ({BTC: "1"}, {BTC: "-0.1"}, [(BTC, D(1), D("-0.1"))]),
        ({BTC: "-1"}, {BTC: "0.1"}, [(BTC, D(-1), D("0.1"))]),
        ({BTC: "1"}, {}, []),
    ],
)
def test_what_is_held_more_of_in_either_direction_has_grown(before: Any, after: Any, told: Any) -> None:
    desk = killed(holding(**before))
    confirm(desk)
    assert verifying(desk)
    assert verify(desk, later(**after), a_tick())
    assert grown(desk) == told
    assert bool([w for w in desk.warning_texts if w.startswith(GREW)]) == bool(told) == bool(rows(desk))


def test_the_warning_says_what_and_since_when_and_the_row_is_written_once() -> None:
    desk = killed(holding())
    for _ in range(3):
        take_observation(desk, later(BTCUSDT="0.5"), 0, a_tick())
    text = (
        "a position grew after the kill, since the reading of 2026-03-12T14:30:00+00:00: BTCUSDT (futures) from 0 to 0.5; "
        "look at the venue"
    )
    assert (desk.warning_texts, rows(desk)) == ([text], [f"Kill 1: {text}"])
    # It is taken off again, by hand or by a deleverage.
    take_observation(desk, later(), 0, a_tick())
    assert (desk.warning_texts, grown(desk)) == ([], [])


def test_what_was_filled_before_the_kill_has_not_grown_after_it() -> None:
    desk = a_desk(symbols=[BTC, ETH])
    take_observation(desk, holding(), 0, a_tick())
    pending = order_prepared(desk, order_of(desk, *chosen(desk, quantity="0.5")))
    pending.phase = OrderPhase.SENDING
    filled = OrderReport(order_id=pending.order.order_id, fate=Fate.FILLED, filled_quantity=D("0.5"))
    take_report(desk, pending, filled, a_tick())
    apply(desk, a_command(CommandKind.KILL, "k"), a_tick())
    take_observation(desk, later(BTCUSDT="0.5"), 0, a_tick())
    assert grown(desk) == []
    take_observation(desk, later(BTCUSDT="0.6"), 0, a_tick())
    assert grown(desk) == [(BTC, D("0.5"), D("0.6"))]


def test_an_order_that_was_on_its_way_when_the_kill_came_is_reported() -> None:
    desk = a_desk(symbols=[BTC, ETH])
    take_observation(desk, holding(), 0, a_tick())
    pending = order_prepared(desk, order_of(desk, *chosen(desk, quantity="0.5")))
    pending.phase = OrderPhase.SENDING
    apply(desk, a_command(CommandKind.KILL, "k"), a_tick())
    filled = OrderReport(order_id=pending.order.order_id, fate=Fate.FILLED, filled_quantity=D("0.5"))
    take_report(desk, pending, filled, a_tick())
    confirm(desk)
    assert verify(desk, later(BTCUSDT="0.5"), a_tick())
    assert grown(desk) == [(BTC, D(0), D("0.5"))]


def test_where_nobody_had_read_before_the_kill_the_first_reading_is_what_nothing_may_grow_beyond() -> None:
    desk = killed(None)
    take_observation(desk, later(BTCUSDT="0.5"), 0, a_tick())
    assert grown(desk) == []
    take_observation(desk, later(BTCUSDT="0.6"), 0, a_tick())
    assert grown(desk) == [(BTC, D("0.5"), D("0.6"))]


def test_what_arrives_after_a_flattening_kill_was_flat_is_closed_as_well() -> None:
    desk = killed(holding(BTCUSDT="2"), kill_flattens=True)
    confirm(desk)
    assert flatten(desk, later(), a_tick())
    assert not flattening(desk)
    # Less than before the kill, and yet new: it was flat in between.
    assert verify(desk, later(BTCUSDT="0.5"), a_tick())
    assert grown(desk) == [(BTC, D(0), D("0.5"))]
    assert flattening(desk)
    flatten(desk, later(BTCUSDT="0.5"), a_tick())
    (closing,) = desk.deleverages
    assert (closing.symbol, closing.reduce_pct) == (BTC, D(1))


def test_after_a_verified_kill_what_a_person_does_by_hand_is_reported_and_left_alone() -> None:
    desk = killed(holding(), kill_flattens=True)
    confirm(desk)
    assert flatten(desk, later(), a_tick())
    assert verify(desk, later(), a_tick())
    take_observation(desk, later(BTCUSDT="0.5"), 0, a_tick())
    assert (grown(desk), flattening(desk)) == ([(BTC, D(0), D("0.5"))], False)


def test_by_default_a_position_that_grew_is_reported_and_not_closed() -> None:
    desk = killed(holding())
    confirm(desk)
    assert verify(desk, later(BTCUSDT="0.5"), a_tick())
    assert (bool(grown(desk)), flattening(desk), desk.deleverages) == (True, False, [])


def test_a_restart_ends_the_warning() -> None:
    desk = killed(holding())
    take_observation(desk, later(BTCUSDT="0.5"), 0, a_tick())
    assert desk.kill
    desk.latched_number, desk.kill.row_written = 1, True
    apply(desk, a_command(CommandKind.RESTART, "r", kill_number=1), a_tick())
    finish_restart(desk, None, a_tick())
    assert desk.warning_texts == []


def test_shadow_compares_nothing() -> None:
    desk = killed(holding(), mode=Mode.SHADOW)
    take_observation(desk, later(BTCUSDT="0.5"), 0, a_tick())
    assert (desk.warning_texts, rows(desk)) == ([], [])


def test_the_status_tells_it_as_facts() -> None:
    desk = killed(holding())
    resting = later(BTCUSDT="0.5").model_copy(update={"open_orders": [an_open_order(ETH)]})
    take_observation(desk, resting, 0, a_tick())
    kill = status_of(desk, "run").kill
    assert kill
    assert kill.grown == [GrownPosition(market=Market.FUTURES, symbol=BTC, before=D(0), now=D("0.5"))]
