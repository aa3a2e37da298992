"""The pure coordinator, one rule a test."""

import random
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest

from domain.desk.applying import apply, cancelled, finish_restart, unknown_signal
from domain.desk.carried import MAX_WARNINGS, Carried, OrderPhase, Outcome, RefusalCode
from domain.desk.commands import Source
from domain.desk.cycle import seconds_to_wait
from domain.desk.handover import pack, unpack
from domain.desk.latch import known_latch, row_answered
from domain.desk.observing import take_observation
from domain.desk.ordering import finish_deleverage, reduction_prepared, take_report
from domain.desk.outbox import (
    MAX_OPEN_CANCELS_PER_LANE,
    batch_written,
    cancels_begun,
    cancels_confirmed,
    cancels_failed,
    desk_row,
    desk_row_written,
    next_batch,
    order_prepared,
    queue_row,
)
from domain.desk.recording import KEPT_COMMANDS, MAX_KEPT_COMMANDS
from domain.desk.states import CommandKind, State
from domain.desk.status import MAX_SHOWN, outcome_of, status_of
from domain.desk.versions import SCHEMA_VERSION
from domain.desk.warnings import Topic, warn
from domain.health.disks import DiskSpace
from domain.risk.reducing import Reduction
from domain.trading.instructions import CANCEL_TOOLS, Side
from domain.trading.market import LatchRow, Observation
from domain.trading.orders import Fate, Order, OrderReport
from tests.domain.builders import (
    BTC,
    ETH,
    NOW,
    a_command,
    a_desk,
    a_position,
    a_tick,
    an_observation,
    an_open_order,
    an_order,
)

KILL, PAUSE, RESUME, RESTART = CommandKind.KILL, CommandKind.PAUSE, CommandKind.RESUME, CommandKind.RESTART
SET_LIMITS = CommandKind.SET_LIMITS


def killed(desk: Carried | None = None) -> Carried:
    """A killed desk whose row and latch are written."""
    desk = desk or a_desk()
    apply(desk, a_command(KILL, "k", reason="r"), a_tick())
    write_everything(desk)
    return desk


def observe(desk: Carried, observation: Observation) -> None:
    take_observation(desk, observation, known_latch(desk), a_tick())


def write_everything(desk: Carried) -> None:
    while desk.records or desk.instruction_rows:
        batch_written(desk, next_batch(desk))
    desk_row_written(desk, desk_row(desk))


def _order(order_id: str) -> Order:
    return Order(order_id=order_id, command_id="d", desk="main", instruction=an_order(), not_after=NOW, prepared_at=NOW)


def a_pending_order(desk: Carried) -> Order:
    order = _order("ord_1")
    order_prepared(desk, order)
    return order


def test_a_kill_covers_the_whitelist_and_then_whatever_else_is_held() -> None:
    desk = a_desk()
    observe(desk, an_observation(positions=[a_position(1, "XRPUSDT")], open_orders=[an_open_order(ETH)]))
    apply(desk, a_command(KILL, "k"), a_tick())
    assert [c.symbol for c in desk.cancels] == [BTC, BTC, ETH, ETH, "XRPUSDT", "XRPUSDT"]


def test_a_symbol_once_seen_is_covered_even_when_nothing_is_held_any_more() -> None:
    desk = a_desk()
    observe(desk, an_observation(open_orders=[an_open_order(ETH)]))
    observe(desk, an_observation())
    assert desk.seen_symbols == [ETH]


def test_every_kill_raises_the_number_and_the_first_reason_stands() -> None:
    desk = killed()
    apply(desk, a_command(KILL, reason="second"), a_tick())
    assert (desk.kill_number, desk.reason) == (2, "r")
    assert len(desk.cancels) == 4
    assert [row.summary for row in desk.records] == ["kill repeated by test: second"]


def test_the_same_kill_twice_is_one_kill() -> None:
    desk = killed()
    apply(desk, a_command(KILL, "k", reason="r"), a_tick())
    assert desk.kill_number == 1
    assert desk.records == []


def test_a_used_id_never_stops_a_kill() -> None:
    desk = a_desk()
    apply(desk, a_command(PAUSE, "x"), a_tick())
    apply(desk, a_command(KILL, "x"), a_tick())
    assert desk.state is State.KILLED
    assert desk.commands["x"].reused_id


def test_a_used_id_with_another_body_is_refused_in_the_log_and_does_nothing() -> None:
    desk = a_desk()
    apply(desk, a_command(PAUSE, "x"), a_tick())
    apply(desk, a_command(RESUME, "x"), a_tick())
    assert desk.state is State.PAUSED
    assert "used for another command" in desk.records[-1].summary


def test_a_command_that_arrives_a_day_late_is_refused_and_a_kill_is_not() -> None:
    desk = a_desk()
    late = NOW - timedelta(hours=25)
    apply(desk, a_command(PAUSE, "p", sent_at=late), a_tick())
    assert desk.commands["p"].code is RefusalCode.EXPIRED
    assert desk.state == "running"
    apply(desk, a_command(KILL, sent_at=late), a_tick())
    assert desk.state == "killed"


def test_a_malformed_pause_still_pauses_and_a_malformed_cancel_is_refused() -> None:
    desk = a_desk()
    apply(desk, a_command(PAUSE, problem="unreadable"), a_tick())
    assert desk.state is State.PAUSED
    apply(desk, a_command(CommandKind.CANCEL_ALL, "c", problem="unreadable"), a_tick())
    assert desk.commands["c"].outcome is Outcome.REFUSED
    assert not desk.cancels


def test_a_symbol_that_is_neither_whitelisted_nor_held_is_refused_by_name() -> None:
    desk = a_desk()
    apply(desk, a_command(CommandKind.CANCEL_ALL, "c", symbols=[BTC, "DOGEUSDT"]), a_tick())
    assert "DOGEUSDT" in (desk.commands["c"].detail or "")
    assert BTC in (desk.commands["c"].detail or "")
    assert not desk.cancels


def test_cancel_all_and_deleverage_work_while_killed() -> None:
    desk = killed()
    apply(desk, a_command(CommandKind.CANCEL_ALL, "c"), a_tick())
    apply(desk, a_command(CommandKind.DELEVERAGE, "d", symbol=BTC, reduce_pct=Decimal("0.5")), a_tick())
    assert desk.commands["c"].outcome is Outcome.APPLIED
    assert desk.commands["d"].outcome is Outcome.PENDING


def test_restart_is_refused_for_another_number_and_while_anything_is_unwritten_or_unknown() -> None:
    desk = a_desk()
    apply(desk, a_command(KILL, "k"), a_tick())
    apply(desk, a_command(RESTART, "early", kill_number=1), a_tick())
    write_everything(desk)
    apply(desk, a_command(RESTART, "other", kill_number=7), a_tick())
    a_pending_order(desk)
    apply(desk, a_command(RESTART, "order", kill_number=1), a_tick())
    details = [desk.commands[name].detail or "" for name in ("early", "other", "order")]
    assert "database" in details[0]
    assert "kill_number is 1, not 7" in details[1]
    assert "ord_1" in details[2]
    assert desk.restart is None


def test_a_restart_runs_again_only_where_the_latch_was_cleared() -> None:
    desk = killed()
    apply(desk, a_command(RESTART, "r", kill_number=1), a_tick())
    finish_restart(desk, None, a_tick())
    assert (desk.state, desk.kill, desk.hand_over) == (State.RUNNING, None, True)


def test_a_command_that_is_repeated_after_a_restart_is_not_carried_out_again() -> None:
    desk = a_desk()
    loosen = {"max_leverage": "1.9"}
    apply(desk, a_command(SET_LIMITS, "s", limits=loosen), a_tick())
    killed(desk)
    apply(desk, a_command(RESTART, "r", kill_number=1), a_tick())
    finish_restart(desk, None, a_tick())
    write_everything(desk)
    apply(desk, a_command(SET_LIMITS, "s", limits=loosen), a_tick())
    assert not desk.records
    assert set(desk.commands) == {"s", "k", "r"}


def test_a_kill_during_a_restart_keeps_it_killed_and_latches_again() -> None:
    desk = killed()
    apply(desk, a_command(RESTART, "r", kill_number=1), a_tick())
    apply(desk, a_command(KILL), a_tick())
    finish_restart(desk, None, a_tick())
    assert desk.state is State.KILLED
    assert desk.latch_due
    assert desk.commands["r"].outcome is Outcome.REFUSED


def test_the_row_of_a_kill_that_came_during_a_restart_is_the_desks_own() -> None:
    desk = killed()
    apply(desk, a_command(RESTART, "r", kill_number=1), a_tick())
    apply(desk, a_command(KILL), a_tick())
    row = desk_row(desk)  # on its way to the database while the restart ends
    finish_restart(desk, None, a_tick())
    row_answered(desk, row, row.latch, a_tick())
    assert desk.latched
    assert not desk.warnings, "Temporal's store was not restored to an old state"


def test_a_restart_whose_clearing_is_unknown_stays_killed_and_latches_under_a_new_number() -> None:
    desk = killed()
    apply(desk, a_command(RESTART, "r", kill_number=1), a_tick())
    finish_restart(desk, "the database went away", a_tick())
    assert desk.state is State.KILLED
    assert desk.kill_number == 2
    assert desk.latch_due


def test_killed_in_the_database_kills_and_killed_here_alone_is_written_again() -> None:
    desk = a_desk()
    observe(desk, an_observation(latch=LatchRow(killed=True, kill_number=4)))
    assert (desk.state, desk.kill_number) == (State.KILLED, 5)
    assert desk.kill is not None
    assert desk.kill.source is Source.DATABASE
    write_everything(desk)
    observe(desk, an_observation(latch=LatchRow(killed=False, kill_number=0)))
    assert desk.latch_due


def test_a_missing_row_is_written_again_and_an_unread_one_changes_nothing() -> None:
    desk = a_desk()
    observe(desk, an_observation(latch=None, latch_error="away"))
    assert not desk.latch_due
    observe(desk, an_observation(latch=None))
    assert desk.latch_due


def test_workflow_cancel_is_a_kill_and_asks_for_a_new_run() -> None:
    desk = a_desk()
    cancelled(desk, "", a_tick())
    assert (desk.state, desk.actor, desk.hand_over) == (State.KILLED, "cancel", True)


@pytest.mark.parametrize("after", [timedelta(0), timedelta(hours=-1)], ids=["in order", "the clock was set back"])
def test_an_order_that_reached_the_venue_is_cancelled_again_after_a_kill(after: timedelta) -> None:
    desk = a_desk()
    order = a_pending_order(desk)
    apply(desk, a_command(KILL, "k"), a_tick(after))
    cancels_confirmed(desk, [c.instruction_id for c in desk.cancels], NOW)
    assert desk.kill is not None
    assert desk.kill.quiet_at is None
    take_report(desk, desk.orders[0], OrderReport(order_id=order.order_id, fate=Fate.OPEN), a_tick())
    assert [c.instruction_id for c in desk.cancels] == [
        "k:2:cancel_all_orders:BTCUSDT",
        "k:2:cancel_spot_all_orders:BTCUSDT",
    ]
    cancels_confirmed(desk, [c.instruction_id for c in desk.cancels], NOW)
    assert desk.kill.quiet_at == NOW


def test_a_flood_of_kills_leaves_bounded_state() -> None:
    desk = a_desk()
    for _ in range(6000):
        apply(desk, a_command(KILL), a_tick())
    assert len(desk.cancels) == 2 * MAX_OPEN_CANCELS_PER_LANE
    assert len(desk.commands) <= MAX_KEPT_COMMANDS + 1
    assert desk.kill is not None
    assert desk.kill.command_id in desk.commands
    carried_over = pack(desk, a_tick(), "run")
    assert len(carried_over.model_dump_json()) < 1_500_000
    assert unpack(Carried.model_validate_json(carried_over.model_dump_json())) == desk


def test_ids_are_kept_for_a_day_and_the_last_thousand_longer() -> None:
    desk = a_desk()
    for number in range(KEPT_COMMANDS + 200):
        apply(desk, a_command(CommandKind.CANCEL_ALL, f"c{number}"), a_tick())
    assert len(desk.commands) == KEPT_COMMANDS + 200
    apply(desk, a_command(CommandKind.CANCEL_ALL, "next"), a_tick(timedelta(hours=25)))
    assert len(desk.commands) == KEPT_COMMANDS


def test_cycles_that_chose_nothing_are_merged_only_before_they_were_tried() -> None:
    from domain.deciding import nothing
    from domain.trading.decisions import Decision

    desk = a_desk()

    def row(name: str) -> Decision:
        return Decision(decision_id=name, timestamp=NOW, decision_type=nothing("x").decision_type, summary="x")

    queue_row(desk, row("a"))
    batch = next_batch(desk)
    queue_row(desk, row("b"))
    queue_row(desk, row("c"))
    assert [(r.decision_id, r.cycles) for r in desk.records] == [("a", 1), ("b", 2)]
    batch_written(desk, batch)
    assert [r.decision_id for r in desk.records] == ["b"]


def test_an_unknown_signal_is_logged_and_shown() -> None:
    desk = a_desk()
    unknown_signal(desk, "kil", a_tick())
    assert "did you mean 'kill'" in desk.warning_texts[0]
    assert desk.state is State.RUNNING


def test_no_flood_of_one_warning_hides_another() -> None:
    desk = a_desk()
    warn(desk, Topic.PAST_IS_OLD, "the desk stays killed")
    for number in range(100):
        unknown_signal(desk, f"kil{number}", a_tick())
    warn(desk, Topic.DISK, "little space", "/data")
    assert len(desk.warnings) == MAX_WARNINGS
    assert (desk.warnings[0].topic, desk.warnings[-1].topic) == (Topic.PAST_IS_OLD, Topic.DISK)
    assert "kil99" in desk.warnings[-2].text


def test_the_status_and_the_outcome_can_always_be_told() -> None:
    desk = killed()
    a_pending_order(desk)
    assert status_of(desk, "run").open_instructions_total == 3
    outcome = outcome_of(desk.commands["k"])
    assert outcome is not None
    assert len(outcome.cancel_instructions or []) == 2


def test_of_many_orders_of_unknown_fate_the_status_lists_the_first_and_counts_all() -> None:
    desk = a_desk()
    for number in range(MAX_SHOWN + 10):
        order_prepared(desk, _order(f"ord_{number}"))
        desk.orders[-1].phase = OrderPhase.UNKNOWN
    status = status_of(desk, "run")
    assert (len(status.unknown_orders), status.unknown_orders_total) == (MAX_SHOWN, MAX_SHOWN + 10)


def test_a_reading_from_before_the_latch_was_written_proves_nothing() -> None:
    desk = a_desk()
    apply(desk, a_command(KILL, "k"), a_tick())
    known = known_latch(desk)
    write_everything(desk)
    take_observation(desk, an_observation(latch=LatchRow(killed=False, kill_number=0)), known, a_tick())
    assert desk.latched


def test_a_restart_keeps_the_record_of_a_deleverage_that_is_still_on_its_way() -> None:
    desk = killed()
    apply(desk, a_command(CommandKind.DELEVERAGE, "d", symbol=BTC, reduce_pct=Decimal("0.5")), a_tick())
    apply(desk, a_command(RESTART, "r", kill_number=1), a_tick())
    finish_restart(desk, None, a_tick())
    finish_deleverage(desk, desk.deleverages[0], None, a_tick())
    assert desk.commands["d"].outcome is Outcome.APPLIED


def test_a_deleverage_never_writes_its_outcome_over_a_kill_that_took_its_id() -> None:
    desk = a_desk()
    apply(desk, a_command(CommandKind.DELEVERAGE, "x", symbol=BTC, reduce_pct=Decimal("0.5")), a_tick())
    apply(desk, a_command(KILL, "x"), a_tick())
    sized = Reduction(instruction=an_order(side=Side.SELL), position=Decimal(2))
    reduction_prepared(desk, desk.deleverages[0], sized, a_tick())
    finish_deleverage(desk, desk.deleverages[0], "no position", a_tick())
    assert (desk.commands["x"].outcome, desk.commands["x"].instruction) == (Outcome.APPLIED, None)


@pytest.mark.parametrize(
    ("filled", "outcome", "told"),
    [
        ("0", Outcome.REFUSED, "deleverage refused by test: 0 of 1 was filled: expired"),
        ("0.4", Outcome.APPLIED, "deleverage applied in part by test: 0.4 of 1 was filled: expired"),
    ],
)
def test_a_deleverage_that_the_venue_gave_up_is_not_told_as_done(filled: str, outcome: Outcome, told: str) -> None:
    desk = a_desk()
    apply(desk, a_command(CommandKind.DELEVERAGE, "d", symbol=BTC, reduce_pct=Decimal("0.5")), a_tick())
    order = a_pending_order(desk)
    desk.deleverages[0].order_id = order.order_id
    report = OrderReport(order_id=order.order_id, fate=Fate.CANCELED, filled_quantity=Decimal(filled), detail="expired")
    take_report(desk, desk.orders[0], report, a_tick())
    assert desk.commands["d"].outcome is outcome
    assert desk.records[-1].summary == told


def test_the_same_kill_again_beats_a_restart_that_is_under_way() -> None:
    desk = killed()
    apply(desk, a_command(RESTART, "r", kill_number=1), a_tick())
    apply(desk, a_command(KILL, "k", reason="r"), a_tick())
    finish_restart(desk, None, a_tick())
    assert desk.state is State.KILLED


def test_after_temporal_came_back_old_a_kill_has_a_number_that_the_database_has_not_settled() -> None:
    desk = killed()
    observe(desk, an_observation(latch=LatchRow(killed=False, kill_number=7)))
    assert desk.kill_number == 8
    assert desk.latch_due
    assert "state is outdated" in desk.warning_texts[-1]


@pytest.mark.parametrize(
    "latch",
    [
        LatchRow(killed=False, kill_number=7),
        LatchRow(killed=False, kill_number=1, kill_id="another"),
        LatchRow(killed=False, kill_number=0, cleared_by="a restart that it does not remember"),
    ],
)
def test_a_coordinator_that_finds_what_it_never_did_is_killed_until_a_person_restarts_it(latch: LatchRow) -> None:
    desk = a_desk()
    if latch.kill_number == 1:
        desk = killed()
        apply(desk, a_command(RESTART, "r", kill_number=1), a_tick())
        finish_restart(desk, None, a_tick())
        # The run after it.
        desk.hand_over = False
    observe(desk, an_observation(latch=latch))
    assert (desk.state, desk.latch_due) == (State.KILLED, True)
    assert desk.kill_number > latch.kill_number
    assert "state is outdated" in desk.warning_texts[-1]
    assert "ais restart" in desk.warning_texts[-1]
    number = desk.kill_number
    write_everything(desk)
    observe(desk, an_observation(latch=desk_row(desk).latch.model_copy(update={"cleared_by": latch.cleared_by})))
    assert desk.kill_number == number
    apply(desk, a_command(RESTART, "again", kill_number=number), a_tick())
    finish_restart(desk, None, a_tick())
    assert (desk.state, desk.warning_texts) == (State.RUNNING, [])


def test_a_kill_is_latched_where_the_row_says_so_and_not_because_it_was_written() -> None:
    desk = a_desk()
    apply(desk, a_command(KILL, "k"), a_tick())
    row = desk_row(desk)
    refused = row.latch.model_copy(update={"killed": False, "cleared_by": "unknown"})
    row_answered(desk, row, refused, a_tick())
    assert (desk.latched, desk.kill_number) == (False, 2)
    row = desk_row(desk)
    row_answered(desk, row, row.latch.model_copy(update={"cleared_by": "unknown"}), a_tick())
    assert (desk.latched, desk.kill_number) == (True, 2)


def test_a_kills_answer_keeps_every_symbol_when_an_orders_fate_comes_later() -> None:
    desk = a_desk(symbols=[BTC, ETH])
    order = a_pending_order(desk)
    apply(desk, a_command(KILL, "k"), a_tick())
    take_report(desk, desk.orders[0], OrderReport(order_id=order.order_id, fate=Fate.OPEN), a_tick())
    assert desk.commands["k"].symbols == [BTC, ETH]


def test_a_repeated_kill_is_not_quiet_before_its_own_cancels_are_confirmed() -> None:
    desk = killed()
    cancels_confirmed(desk, [c.instruction_id for c in desk.cancels], NOW)
    assert desk.kill is not None
    assert desk.kill.quiet_at == NOW
    apply(desk, a_command(KILL), a_tick())
    assert desk.kill.quiet_at is None


LETTERS = np.array([number for number in range(33, 0x2FFF) if chr(number).isprintable()], dtype="<u4")
DRAWN = np.random.default_rng(3)


def strange(length: int) -> str:
    """Letters of every script, which no packing makes shorter."""
    return DRAWN.choice(LETTERS, length).tobytes().decode("utf-32-le")


def test_the_worst_that_can_be_carried_over_fits_into_a_payload() -> None:
    noise = random.Random(3)
    desk = a_desk(symbols=[f"S{number}USDT" for number in range(60)])
    for number in range(6_000):
        reason = strange(500)
        kind = noise.choice([PAUSE, RESUME]) if number < 5_900 else KILL
        apply(desk, a_command(kind, reason=reason), a_tick())
    for cancel in desk.cancels:
        cancel.last_error = strange(300)
    handed_over = pack(desk, a_tick(), "run").model_dump_json()
    assert len(handed_over.encode()) < 1_900_000
    again = unpack(Carried.model_validate_json(handed_over))
    assert (again.state, again.kill_number) == (State.KILLED, 100)
    assert sum(row.cycles for row in again.records) == 6_000


def test_no_text_of_a_venue_costs_a_kill_its_cancels_when_a_run_ends() -> None:
    symbols = [f"S{number}USDT" for number in range(200)]
    desk = a_desk(symbols=symbols, seen_symbols=[f"T{number}USDT" for number in range(200)])
    desk.observation = an_observation(note=strange(400_000))
    for _ in range(MAX_OPEN_CANCELS_PER_LANE):
        apply(desk, a_command(KILL, strange(128)), a_tick())
    for cancel in desk.cancels:
        cancel.attempts, cancel.last_error = 1, strange(300)
    again = unpack(Carried.model_validate_json(pack(desk, a_tick(), "run").model_dump_json()))
    names = [cancel.instruction_id for cancel in desk.cancels]
    assert len(names) == 2 * 400 * MAX_OPEN_CANCELS_PER_LANE
    assert [cancel.instruction_id for cancel in again.cancels] == names
    assert again.cancels.newest(CANCEL_TOOLS[0], symbols[0]).last_error


def test_a_reading_that_is_too_large_to_be_carried_over_ends_no_run_in_an_error() -> None:
    desk = a_desk()
    desk.observation = an_observation(note=strange(700_000))
    again = unpack(pack(desk, a_tick(), "run"))
    assert (again.observation, again.records) == (None, [])


def test_open_cancels_of_other_symbols_never_stand_for_this_one() -> None:
    desk = a_desk(symbols=[f"S{number}USDT" for number in range(30)])
    apply(desk, a_command(KILL, "k"), a_tick())
    apply(desk, a_command(CommandKind.CANCEL_ALL, "c", symbols=["S7USDT"]), a_tick())
    assert [c.symbol for c in desk.cancels if c.command_id == "c"] == ["S7USDT", "S7USDT"]


def test_cancels_that_have_begun_never_stand_for_a_later_command() -> None:
    desk = a_desk()
    for _ in range(MAX_OPEN_CANCELS_PER_LANE + 5):
        apply(desk, a_command(KILL), a_tick())
    cancels_begun(desk, [c.instruction_id for c in desk.cancels])
    apply(desk, a_command(KILL, "late"), a_tick())
    assert len([c for c in desk.cancels if c.command_id == "late"]) == 2


def full_lanes(attempts: int, schema_version: int = SCHEMA_VERSION) -> Carried:
    """Two lanes of cancels that nobody has confirmed."""
    desk = a_desk(schema_version=schema_version)
    for number in range(MAX_OPEN_CANCELS_PER_LANE):
        apply(desk, a_command(CommandKind.CANCEL_ALL, f"c{number}"), a_tick())
    for _ in range(attempts):
        the_venue_refuses(desk)
    return desk


def the_venue_refuses(desk: Carried) -> None:
    for tool in CANCEL_TOOLS:
        cancels_failed(desk, [cancel.instruction_id for cancel in desk.cancels.lane(tool, BTC)], "HTTP 503")


@pytest.mark.parametrize(
    ("desk", "own"),
    [
        pytest.param(full_lanes(attempts=1), 2, id="they wait for their next attempt"),
        pytest.param(full_lanes(attempts=0), 0, id="they start at once"),
        pytest.param(full_lanes(attempts=1, schema_version=6), 0, id="under the rules of version 6"),
    ],
)
def test_a_kill_never_rests_with_cancels_that_failed(desk: Carried, own: int) -> None:
    """Ten cancel-alls that had failed for a while held up a kill until their next attempt, for up to four seconds."""
    apply(desk, a_command(CommandKind.CANCEL_ALL, "one more"), a_tick())
    for name in ("k", "again"):
        apply(desk, a_command(KILL, name), a_tick())
    assert [c.command_id for c in desk.cancels][2 * MAX_OPEN_CANCELS_PER_LANE :] == ["k"] * own
    the_venue_refuses(desk)
    assert len(desk.cancels) == 2 * MAX_OPEN_CANCELS_PER_LANE
    assert desk.kill
    assert desk.kill.cancels == 0


def test_kills_beside_a_venue_that_fails_do_not_grow_the_state() -> None:
    desk = a_desk()
    apply(desk, a_command(KILL), a_tick())
    for _ in range(10 * MAX_OPEN_CANCELS_PER_LANE):
        called = [[cancel.instruction_id for cancel in desk.cancels.lane(tool, BTC)] for tool in CANCEL_TOOLS]
        cancels_begun(desk, [instruction_id for ids in called for instruction_id in ids])
        apply(desk, a_command(KILL), a_tick())
        for ids in called:
            cancels_failed(desk, ids, "HTTP 503")
    # The bound, and the one of each lane that came while a call was under way.
    assert len(desk.cancels) == 2 * (MAX_OPEN_CANCELS_PER_LANE + 1)
    assert desk.kill
    assert desk.kill.cancels == len(desk.cancels)
    cancels_confirmed(desk, [cancel.instruction_id for cancel in desk.cancels], NOW)
    assert desk.kill.quiet_at == NOW
    assert {row.outcome.value for row in desk.instruction_rows.values()} == {"failed", "confirmed"}


def test_little_disk_space_is_a_warning_for_as_long_as_it_holds() -> None:
    desk = a_desk()
    full = DiskSpace(folder="data", free_bytes=900_000_000, size_bytes=100_000_000_000)
    for _ in range(2):
        take_observation(desk, an_observation(low_disks=[full]), 0, a_tick())
        assert desk.warning_texts == [
            "little space in data: 0.90 GB of 100 GB free (0 %); a full disk can record no kill"
        ]
    take_observation(desk, an_observation(), 0, a_tick())
    assert desk.warning_texts == []


def test_a_kill_that_takes_the_id_of_a_restart_keeps_its_outcome() -> None:
    desk = killed()
    apply(desk, a_command(RESTART, "x", kill_number=1), a_tick())
    apply(desk, a_command(KILL, "x"), a_tick())
    finish_restart(desk, None, a_tick())
    assert (desk.commands["x"].kind, desk.commands["x"].outcome) == (KILL, Outcome.APPLIED)
    assert "restart refused" in desk.records[-1].summary


@pytest.mark.parametrize(
    ("last", "seconds"), [(None, 0), (-7, 0), (-2, 3), (0, 5), (3_600, 5)],
    ids=["the first", "overdue", "under way", "just now", "the clock was set back"],
)  # fmt: skip
def test_the_next_cycle_is_never_further_away_than_one_takes(last: int | None, seconds: float) -> None:
    """A server whose clock was set back by an hour left the desk unobserved for that hour, and no limit was watched."""
    desk = a_desk(cycle_seconds=5.0)
    desk.last_cycle_at = None if last is None else NOW + timedelta(seconds=last)
    assert seconds_to_wait(desk, NOW) == seconds
