"""The kill as a saga: counted, verified at the venue, what is left told by name; and shadow, where nothing is sent."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.deciding import Choice
from domain.desk.applying import apply, finish_restart
from domain.desk.carried import Carried, PendingDeleverage
from domain.desk.commands import Source
from domain.desk.details import details
from domain.desk.enforcing import flatten, flattening, may_reduce, only_dust_is_left, reduce, take_assessment
from domain.desk.killing import MAX_SEEN_SYMBOLS, note_symbols, own_kill, residue, under_way, verify, verifying
from domain.desk.knowledge import known_of
from domain.desk.observing import take_observation
from domain.desk.ordering import decision_of, order_of, reduction_prepared, take_report
from domain.desk.outbox import (
    MAX_OPEN_CANCELS_PER_LANE,
    NOT_SENT_IN_SHADOW,
    batch_written,
    cancels_begun,
    cancels_confirmed,
    cancels_failed,
    desk_row,
    desk_row_written,
    next_batch,
    order_prepared,
)
from domain.desk.states import CommandKind, Mode
from domain.desk.status import KillStatus, status_of
from domain.desk.warnings import Topic, warn
from domain.risk.reducing import plan
from domain.trading.decisions import DecisionType
from domain.trading.instructions import InstructionOutcome
from domain.trading.market import NOTHING_KNOWN, Observation
from domain.trading.orders import Fate, OrderReport
from tests.domain.builders import (
    BTC,
    ETH,
    NOW,
    a_command,
    a_deleverage,
    a_desk,
    a_position,
    a_tick,
    an_observation,
    an_open_order,
    an_order,
    some_rules,
    watched,
)

KILL = CommandKind.KILL
LATER = NOW + timedelta(seconds=9)
UNWRITTEN = ["the latch is not written to the database yet", "the kill's row is not in the decision log yet"]
NOT_VERIFIED = "not verified yet: no confirmed reading of the account has shown that no order is open"
NOT_FLAT = "not flat yet: no confirmed reading of the account has shown that no position is left"
DOUBTS = ["BTCUSDT: get_positions says 0, get_account_v4 1"]


def killed(**changes: Any) -> Carried:
    desk = a_desk(**{"symbols": [BTC, ETH]} | changes)
    apply(desk, a_command(KILL, "k"), a_tick())
    return desk


def told(desk: Carried) -> KillStatus:
    status = status_of(desk, "run").kill
    assert status
    return status


def confirm(desk: Carried, *symbols: str) -> None:
    """The venue confirms what is open, of all symbols or of these."""
    ids = [cancel.instruction_id for cancel in desk.cancels if not symbols or cancel.symbol in symbols]
    cancels_begun(desk, ids)
    cancels_confirmed(desk, ids, NOW)


def chosen(desk: Carried, **changes: Any) -> Any:
    """What a cycle has chosen, as `order_of` takes it."""
    choice = Choice(decision_type=DecisionType.ORDER_INTENT, summary="x", instruction=an_order(**changes))
    return choice, decision_of(desk, choice, a_tick()), a_tick()


def read(**changes: Any) -> Observation:
    return an_observation(observed_at=LATER, **changes)


def test_progress_counts_what_the_venue_has_confirmed() -> None:
    desk = killed()
    assert (told(desk).progress, told(desk).cancels) == ("0 of 4 cancels confirmed", 4)
    confirm(desk, BTC)
    assert told(desk).progress == "2 of 4 cancels confirmed"
    confirm(desk)
    assert told(desk).progress.startswith("every cancel confirmed 2026")
    assert "not yet verified" in told(desk).progress


def test_a_kill_is_under_way_until_it_is_verified_latched_and_written() -> None:
    desk = killed()
    confirm(desk)
    assert under_way(desk)
    assert verify(desk, read(), a_tick())
    desk_row_written(desk, desk_row(desk))
    assert under_way(desk)
    batch_written(desk, next_batch(desk))
    assert not under_way(desk)


def test_a_repeated_kill_adds_to_what_is_counted_and_is_verified_anew() -> None:
    desk = killed()
    confirm(desk)
    assert verify(desk, read(), a_tick())
    apply(desk, a_command(KILL, "again"), a_tick())
    assert (told(desk).progress, told(desk).verified_at) == ("4 of 8 cancels confirmed", None)


def test_it_is_verified_only_by_a_reading_without_an_open_order() -> None:
    desk = killed()
    assert not verifying(desk)
    confirm(desk)
    assert verifying(desk)
    assert verify(desk, read(), a_tick())
    assert told(desk).verified_at == LATER
    assert not verifying(desk)
    assert told(desk).progress.endswith("no open order at the venue")


@pytest.mark.parametrize("symbol", [BTC, "DOGEUSDT"])
def test_what_is_still_open_gets_cancels_of_a_new_round(symbol: str) -> None:
    desk = killed()
    confirm(desk)
    assert not verify(desk, read(open_orders=[an_open_order(symbol)]), a_tick())
    assert [cancel.instruction_id for cancel in desk.cancels] == [
        f"k:2:cancel_all_orders:{symbol}",
        f"k:2:cancel_spot_all_orders:{symbol}",
    ]
    assert not verifying(desk)
    assert told(desk).progress == "4 of 6 cancels confirmed"


def test_a_position_that_nobody_knew_of_gets_cancels_once() -> None:
    desk = killed()
    confirm(desk)
    held = read(positions=[a_position(1, "DOGEUSDT"), a_position(1)])
    assert not verify(desk, held, a_tick())
    assert {cancel.symbol for cancel in desk.cancels} == {"DOGEUSDT"}
    confirm(desk)
    assert verify(desk, held, a_tick())


def test_what_is_not_over_is_reported_by_name() -> None:
    desk = killed()
    order_prepared(desk, order_of(desk, *chosen(desk)))
    confirm(desk, ETH)
    cancels_failed(desk, [cancel.instruction_id for cancel in list(desk.cancels)[:1]], "HTTP 503")
    take_observation(desk, read(open_orders=[an_open_order(ETH), an_open_order(ETH)]), 1, a_tick())
    (order,) = desk.orders
    expected = [
        f"cancel_all_orders {BTC}: HTTP 503",
        f"cancel_spot_all_orders {BTC}",
        f"order {order.order.order_id} of {BTC}: decided",
        f"2 open futures orders of {ETH}",
    ]
    assert told(desk).residue == [*expected, *UNWRITTEN]
    assert all(text in details(desk) for text in expected)
    assert "**kill 1: 2 of 4 cancels confirmed**" in details(desk)


def test_a_reading_from_before_the_kill_tells_nothing_of_what_is_left() -> None:
    desk = a_desk()
    take_observation(desk, an_observation(open_orders=[an_open_order(BTC)]), 0, a_tick())
    apply(desk, a_command(KILL, "k"), a_tick(timedelta(seconds=1)))
    confirm(desk)
    assert told(desk).residue == [NOT_VERIFIED, *UNWRITTEN]


def test_an_attempt_that_failed_is_written_with_its_error() -> None:
    desk = killed()
    desk.instruction_rows.clear()
    first = next(iter(desk.cancels))
    cancels_failed(desk, [first.instruction_id], "HTTP 503")
    (row,) = desk.instruction_rows.values()
    assert (row.outcome, row.attempts, row.detail) == (InstructionOutcome.PREPARED, 1, "HTTP 503")


# --- what an order is settled by ------------------------------------------------------------------------------------


def test_an_order_carries_what_was_held_when_it_was_decided() -> None:
    desk = a_desk()
    take_observation(desk, an_observation(positions=[a_position("-0.5")]), 0, a_tick())
    assert order_of(desk, *chosen(desk)).position_before == Decimal("-0.5")
    assert order_of(desk, *chosen(desk, symbol=ETH)).position_before == 0


def test_a_reduction_carries_the_position_that_it_was_sized_from() -> None:
    desk = a_desk()
    sized = plan(an_observation(positions=[a_position("-0.5")]), BTC, Decimal(1))
    pending = PendingDeleverage(command=a_deleverage(), symbol=BTC, reduce_pct=Decimal(1))
    assert reduction_prepared(desk, pending, sized, a_tick()).order.position_before == Decimal("-0.5")


def test_what_was_read_immediately_before_the_send_stands_for_it() -> None:
    desk = a_desk()
    pending = order_prepared(desk, order_of(desk, *chosen(desk)))
    report = OrderReport(order_id=pending.order.order_id, fate=Fate.UNKNOWN, position_before=Decimal(3))
    take_report(desk, pending, report, a_tick())
    assert desk.orders[0].order.position_before == 3


# --- shadow ---------------------------------------------------------------------------------------------------------


def test_in_shadow_a_kill_prepares_its_cancels_and_claims_nothing() -> None:
    desk = killed(mode=Mode.SHADOW, kill_flattens=True)
    rows = list(desk.instruction_rows.values())
    assert [(row.outcome, row.detail) for row in rows] == [(InstructionOutcome.PREPARED, NOT_SENT_IN_SHADOW)] * 4
    assert (list(desk.cancels), flattening(desk), verifying(desk)) == ([], False, False)
    assert told(desk).quiet_at is None
    assert told(desk).progress == "shadow: 4 cancels prepared, none is sent"


def test_in_shadow_an_order_stays_prepared_and_a_deleverage_is_done_with_it() -> None:
    desk = a_desk(mode=Mode.SHADOW)
    apply(desk, a_command(CommandKind.DELEVERAGE, "d", symbol=BTC, reduce_pct=Decimal(1)), a_tick())
    sized = plan(an_observation(positions=[a_position(1)]), BTC, Decimal(1))
    placed = reduction_prepared(desk, desk.deleverages[0], sized, a_tick())
    report = OrderReport(order_id=placed.order.order_id, fate=Fate.PREPARED, detail=NOT_SENT_IN_SHADOW)
    take_report(desk, placed, report, a_tick())
    row = desk.instruction_rows[placed.order.order_id]
    assert (row.outcome, row.settled_at, row.detail) == (InstructionOutcome.PREPARED, None, NOT_SENT_IN_SHADOW)
    assert (desk.orders, desk.deleverages, desk.commands["d"].outcome) == ([], [], "applied")


def test_in_shadow_a_soft_limit_asks_for_its_reduction_once() -> None:
    desk = a_desk(mode=Mode.SHADOW)
    for expected in ([BTC], []):
        seen = watched(an_observation(positions=[a_position(40)], rules={BTC: some_rules()}), desk.limits, desk.risk)
        assert seen.assessment
        take_assessment(desk, seen.assessment, a_tick())
        assert seen.assessment.cuts
        assert reduce(desk, seen.assessment, a_tick()) == expected
        desk.deleverages.clear()


def restarted(desk: Carried) -> None:
    """Back to running, by a person."""
    desk.latched_number = desk.kill_number
    if desk.kill:
        desk.kill.row_written = True
    desk.records.clear()
    apply(desk, a_command(CommandKind.RESTART, kill_number=desk.kill_number), a_tick())
    finish_restart(desk, None, a_tick())


def test_what_is_left_of_an_older_kill_does_not_count_for_a_new_one() -> None:
    desk = killed(symbols=[BTC])
    old = [cancel.instruction_id for cancel in desk.cancels]
    restarted(desk)
    apply(desk, a_command(KILL, "second"), a_tick())
    cancels_confirmed(desk, old, NOW)
    assert told(desk).progress == "0 of 2 cancels confirmed"
    confirm(desk)
    assert (told(desk).cancels, told(desk).confirmed) == (2, 2)


def test_an_id_that_comes_again_after_a_restart_makes_new_instructions() -> None:
    """A runbook with a fixed Idempotency-Key: the database would take the old rows for the new ones, and say confirmed."""
    desk = killed()
    first = {cancel.instruction_id for cancel in desk.cancels}
    confirm(desk)
    restarted(desk)
    apply(desk, a_command(KILL, "k"), a_tick())
    second = {cancel.instruction_id for cancel in desk.cancels}
    assert (len(second), first & second) == (4, set())


def test_cancels_that_a_person_asks_for_do_not_open_a_verified_kill_again() -> None:
    desk = killed()
    confirm(desk)
    assert verify(desk, read(), a_tick())
    apply(desk, a_command(CommandKind.CANCEL_ALL, "ca", symbols=[BTC]), a_tick())
    confirm(desk)
    assert (told(desk).verified_at, verifying(desk)) == (LATER, False)


def test_a_symbol_that_was_seen_is_not_forgotten_for_a_new_one() -> None:
    seen = [f"S{number:03}USDT" for number in range(MAX_SEEN_SYMBOLS)]
    desk = a_desk(seen_symbols=seen)
    assert note_symbols(desk, an_observation(open_orders=[an_open_order("AAAUSDT")])) == []
    assert desk.seen_symbols == seen


def test_after_an_operators_kill_no_limit_sends_anything_though_a_limit_killed_first() -> None:
    desk = a_desk()
    apply(desk, own_kill("risk", "drawdown", Source.RISK, a_tick()), a_tick())
    assert may_reduce(desk)
    seen = watched(an_observation(positions=[a_position(40)], rules={BTC: some_rules()}), desk.limits, desk.risk)
    assert seen.assessment
    assert reduce(desk, seen.assessment, a_tick()) == [BTC]
    apply(desk, a_command(KILL, "hands off"), a_tick())
    assert (may_reduce(desk), desk.deleverages) == (False, [])
    assert told(desk).source == "risk"


@pytest.mark.parametrize("open_orders", [[], [an_open_order(BTC)]])
def test_nothing_is_flat_while_something_may_still_fill(open_orders: list[Any]) -> None:
    desk = a_desk(kill_flattens=True)
    apply(desk, a_command(KILL, "k"), a_tick())
    assert not flatten(desk, read(open_orders=open_orders), a_tick())
    confirm(desk)
    assert flatten(desk, read(open_orders=open_orders), a_tick()) is not bool(open_orders)


def test_the_warning_of_an_unknown_order_ends_with_it() -> None:
    desk = a_desk()
    pending = order_prepared(desk, order_of(desk, *chosen(desk)))
    order_id = pending.order.order_id
    take_report(desk, pending, OrderReport(order_id=order_id, fate=Fate.UNKNOWN), a_tick())
    warn(desk, Topic.ORDER_UNKNOWN, "the venue is away", order_id)
    take_report(desk, pending, OrderReport(order_id=order_id, fate=Fate.FILLED), a_tick())
    assert desk.warning_texts == []


def test_what_is_left_of_a_kill_says_how_much_of_it_is_not_listed() -> None:
    """Somebody who cancels by hand took the first fifty for all."""
    desk = a_desk(symbols=[f"S{number}USDT" for number in range(30)])
    apply(desk, a_command(KILL, "k"), a_tick())
    left = list(residue(desk))
    assert len(left) == 60 + len(UNWRITTEN)
    shown = told(desk).residue
    assert shown[:-1] == left[:49]
    assert shown[-1] == f"and {len(left) - 49} more, among the open instructions"


def test_what_an_older_reading_showed_is_no_residue_of_a_verified_kill() -> None:
    desk = a_desk(symbols=[BTC])
    apply(desk, a_command(KILL, "k"), a_tick())
    # Read while the cancels were under way.
    take_observation(
        desk, an_observation(observed_at=NOW + timedelta(seconds=1), open_orders=[an_open_order(BTC)]), 1, a_tick()
    )
    confirm(desk)
    assert told(desk).residue
    assert verify(desk, read(), a_tick())
    assert told(desk).residue == UNWRITTEN


# --- readings that are no facts, and what is left of a kill -----------------------------------------------------------


def flattening_desk(**changes: Any) -> Carried:
    desk = killed(kill_flattens=True, **changes)
    confirm(desk)
    return desk


def test_a_doubtful_reading_verifies_nothing_and_cancels_what_it_shows() -> None:
    desk = killed()
    confirm(desk)
    assert not verify(desk, read(doubts=DOUBTS), a_tick())
    assert (told(desk).verified_at, list(desk.cancels)) == (None, [])
    assert not verify(desk, read(doubts=DOUBTS, open_orders=[an_open_order(BTC)]), a_tick())
    assert {cancel.symbol for cancel in desk.cancels} == {BTC}
    confirm(desk)
    assert verify(desk, read(), a_tick())


def test_a_doubtful_reading_closes_what_it_shows_and_is_never_flat() -> None:
    desk = flattening_desk()
    assert not flatten(desk, read(doubts=DOUBTS), a_tick())
    assert (told(desk).flat_at, desk.deleverages) == (None, [])
    assert not flatten(desk, read(doubts=DOUBTS, positions=[a_position(1)]), a_tick())
    assert [d.symbol for d in desk.deleverages] == [BTC]
    desk.deleverages = []
    assert flatten(desk, read(), a_tick())


def test_a_doubtful_position_that_is_larger_has_not_grown() -> None:
    desk = killed()
    take_observation(desk, read(positions=[a_position(1)]), 1, a_tick())
    confirm(desk)
    verify(desk, read(doubts=DOUBTS, positions=[a_position(9)]), a_tick())
    assert told(desk).grown == []


def test_an_operators_reduction_is_not_sized_from_a_doubtful_reading_and_a_kills_is() -> None:
    doubtful = an_observation(positions=[a_position(1)], doubts=DOUBTS)
    assert plan(doubtful, BTC, Decimal(1)).refusal == f"The position in {BTC} is not known: {DOUBTS[0]}."
    assert plan(doubtful, BTC, Decimal(1), automatic=True).instruction


def test_a_flattening_kill_tells_each_position_that_is_left_and_dust_as_dust() -> None:
    desk = flattening_desk()
    assert told(desk).residue == [NOT_VERIFIED, NOT_FLAT, *UNWRITTEN]
    rules = {BTC: some_rules(), ETH: some_rules(ETH)}
    positions = [a_position("-2.5"), a_position("0.0004", ETH), a_position(7, "DOGEUSDT")]
    assert not flatten(desk, read(positions=positions, rules=rules), a_tick())
    left = [
        f"position of -2.5 {BTC}, not closed yet",
        f"dust of {ETH}: 0.0004 is below the lot step 0.001",
        "position of 7 DOGEUSDT, not closed yet",
    ]
    assert told(desk).residue == [*left, NOT_VERIFIED, *UNWRITTEN]
    # Nothing can be sent for dust.
    assert [d.symbol for d in desk.deleverages] == [BTC, "DOGEUSDT"]
    assert "dust of" in details(desk)
    assert not only_dust_is_left(desk)
    desk.deleverages = []
    assert not flatten(desk, read(positions=positions[1:2], rules=rules), a_tick())
    assert told(desk).residue == [left[1], NOT_VERIFIED, *UNWRITTEN]
    assert only_dust_is_left(desk)
    assert verify(desk, read(positions=positions[1:2], rules=rules), a_tick())
    assert told(desk).residue == [left[1], *UNWRITTEN]


def test_before_the_first_reading_what_was_held_as_the_kill_came_is_left() -> None:
    desk = a_desk(kill_flattens=True)
    take_observation(desk, an_observation(positions=[a_position("0.123")]), 0, a_tick())
    apply(desk, a_command(KILL, "k"), a_tick())
    assert f"position of 0.123 {BTC}, not closed yet" in told(desk).residue


def test_an_account_that_cannot_be_read_is_left_until_the_kill_is_verified() -> None:
    desk = killed()
    confirm(desk)
    desk.observation_error = "get_positions: HTTP 503"
    assert told(desk).residue[:2] == ["the account cannot be read: get_positions: HTTP 503", NOT_VERIFIED]
    verify(desk, read(), a_tick())
    assert told(desk).residue == UNWRITTEN


def test_a_limits_reduction_after_its_own_kill_and_a_position_that_grew_are_left() -> None:
    desk = a_desk()
    take_observation(desk, an_observation(positions=[a_position(1)]), 0, a_tick())
    apply(desk, own_kill("risk", "x", Source.RISK, a_tick()), a_tick())
    confirm(desk)
    pending = PendingDeleverage(command=a_deleverage(symbol=ETH), symbol=ETH, reduce_pct=Decimal(1), automatic=True)
    desk.deleverages.append(pending)
    verify(desk, read(positions=[a_position(2)]), a_tick())
    assert told(desk).residue[:2] == [f"position of {BTC} (futures) grew from 1 to 2", f"reduction of {ETH}"]


def test_nothing_is_left_once_everything_is_over_and_written() -> None:
    desk = flattening_desk()
    assert flatten(desk, read(), a_tick())
    assert verify(desk, read(), a_tick())
    desk.latched_number = desk.kill_number
    assert desk.kill
    desk.kill.row_written = True
    assert told(desk).residue == []


def test_what_the_desk_knows_goes_with_each_reading() -> None:
    desk = a_desk(kill_flattens=True)
    assert known_of(desk) == NOTHING_KNOWN
    take_observation(
        desk,
        an_observation(positions=[a_position("0.5"), a_position(-1, ETH)], open_orders=[an_open_order(BTC)]),
        0,
        a_tick(),
    )
    desk.filled = {f"futures {BTC}": Decimal("0.25"), f"futures {ETH}": Decimal(1)}
    known = known_of(desk)
    assert (known.held, known.balance) == ({BTC: Decimal("0.75")}, Decimal(10_000))
    assert [(o.market, o.symbol, o.order_id) for o in known.resting] == [("futures", BTC, "o")]
    apply(desk, a_command(KILL, "k"), a_tick())
    assert (known_of(desk).verifies, known_of(desk).flattens) == (False, True)
    confirm(desk)
    assert known_of(desk).verifies


def test_many_doubts_are_reported_in_one_line() -> None:
    assert read().doubt is None
    assert read(doubts=["a", "b"]).doubt == "a; b"
    assert read(doubts=list("abcdefg")).doubt == "a; b; c; d; e; and 2 more"


def test_a_kill_that_older_cancels_serve_is_verified_all_the_same() -> None:
    """Ten cancel-alls that the venue had not confirmed left no room for the kill's own: it was never verified, silently."""
    desk = a_desk()
    for number in range(MAX_OPEN_CANCELS_PER_LANE):
        apply(desk, a_command(CommandKind.CANCEL_ALL, f"c{number}"), a_tick())
    apply(desk, a_command(KILL, "k"), a_tick())
    assert desk.kill
    assert desk.kill.cancels == 0
    cancels_confirmed(desk, [cancel.instruction_id for cancel in desk.cancels], a_tick().now)
    assert verifying(desk)
    assert any("verif" in left or "read" in left for left in residue(desk))
    assert verify(desk, an_observation(observed_at=NOW + timedelta(seconds=1)), a_tick())
