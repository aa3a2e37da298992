"""What a coordinator does about its limits, one rule a test."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.desk.applying import apply, finish_restart
from domain.desk.carried import Carried, PendingDeleverage
from domain.desk.commands import Source
from domain.desk.details import details
from domain.desk.enforcing import confirm, flatten, flattening, may_reduce, reduce, reducing, take_assessment
from domain.desk.killing import issue_cancels
from domain.desk.observing import take_observation
from domain.desk.ordering import (
    due_deleverages,
    finish_deleverage,
    next_deleverage,
    nothing_to_send,
    reduction_prepared,
    take_report,
)
from domain.desk.outbox import batch_written, cancels_confirmed, desk_row, desk_row_written, next_batch
from domain.desk.states import CommandKind, State
from domain.desk.status import status_of
from domain.risk.assessing import assess
from domain.risk.limits import Limits
from domain.risk.reducing import Reduction, plan
from domain.trading.assessment import Assessment, Crossing, Cut, Level
from domain.trading.decisions import Decision, DecisionType
from domain.trading.instructions import Side
from domain.trading.market import Account, Observation
from domain.trading.orders import Fate, OrderReport
from tests.domain.builders import BTC, ETH, NOW, a_command, a_desk, a_position, a_tick, an_observation, some_rules

D = Decimal
KILL, PAUSE = CommandKind.KILL, CommandKind.PAUSE
RULES = {symbol: some_rules(symbol) for symbol in (BTC, ETH)}


def reading(desk: Carried, equity: int = 10_000, **changes: Any) -> Observation:
    """A watched reading, as the activity `observe` hands it over."""
    seen = an_observation(account=Account(balance=D(equity)), rules=RULES, **changes)
    return seen.model_copy(update={"assessment": assess(seen.reading, desk.limits, desk.risk)})


def take(desk: Carried, equity: int = 10_000, **changes: Any) -> Assessment:
    """One reading, taken in as a cycle does."""
    seen = reading(desk, equity, **changes)
    take_observation(desk, seen, 0, a_tick())
    assert seen.assessment
    take_assessment(desk, seen.assessment, a_tick())
    return seen.assessment


def rows(desk: Carried, kind: DecisionType = DecisionType.RISK_ACTION) -> list[Decision]:
    return [row for row in desk.records if row.decision_type is kind]


def breached(desk: Carried | None = None, **changes: Any) -> tuple[Carried, Assessment]:
    """A desk that has lost a fifth of its account."""
    desk = desk or a_desk()
    take(desk)
    return desk, take(desk, 8_000, **changes)


# --- warnings -------------------------------------------------------------------------------------------------------


def test_each_crossing_is_a_row_of_its_own() -> None:
    desk = a_desk(limits=Limits(soft_daily_loss=1, hard_daily_loss=1))
    take(desk)
    take(desk, 9_250)
    take(desk, 9_249)
    assert [row.summary for row in rows(desk)] == [
        "Drawdown 7.5 % has reached 50 % of its soft limit of 8 %",
        "Drawdown 7.5 % has reached 75 % of its soft limit of 8 %",
        "Drawdown 7.5 % has reached 90 % of its soft limit of 8 %",
    ]
    assert rows(desk)[0].risk_reasons == ["drawdown_breached: 0.075 >= 0.04"]


def test_the_status_shows_how_near_each_limit_is() -> None:
    desk = a_desk()
    take(desk)
    take(desk, 9_500)
    portfolio = status_of(desk, "run").portfolio
    assert portfolio
    levels = {limit.limit: limit.level for limit in portfolio.limits}
    assert (levels["drawdown"], levels["daily_loss"], levels["leverage"]) == ("warn_50", "soft", "calm")
    assert (portfolio.equity, portfolio.peak) == (D(9_500), D(10_000))


# --- reductions -----------------------------------------------------------------------------------------------------


def test_past_the_soft_limit_the_desk_reduces_and_says_by_how_much() -> None:
    desk = a_desk()
    assessment = take(desk, positions=[a_position(40)])
    assert reduce(desk, assessment, a_tick()) == [BTC]
    (pending,) = desk.deleverages
    assert (pending.symbol, pending.quantity, pending.automatic) == (BTC, D("6.75"), True)
    (row,) = (row for row in rows(desk) if "reducing" in row.summary)
    assert row.summary == "Largest position 40 % has passed its soft limit of 35 %: reducing BTCUSDT by 6.75"
    assert pending.command.command_id == row.decision_id


def test_a_symbol_is_reduced_once_at_a_time_and_the_row_is_written_once() -> None:
    desk = a_desk()
    for _ in range(3):
        reduce(desk, take(desk, positions=[a_position(40)]), a_tick())
    assert len(desk.deleverages) == 1
    assert len([row for row in rows(desk) if "reducing" in row.summary]) == 1


def test_the_warning_of_a_failed_reduction_ends_once_nothing_needs_it_any_more() -> None:
    """A person closed the position, or its price came back: the status went on saying that reducing it had failed."""
    desk = a_desk()
    reduce(desk, take(desk, positions=[a_position(40)]), a_tick())
    finish_deleverage(desk, desk.deleverages[0], "the position cannot be read", a_tick())
    take(desk, positions=[a_position(40)])
    assert desk.warning_texts == [f"reducing {BTC} failed: the position cannot be read"]
    take(desk, positions=[a_position(10)])
    assert desk.warning_texts == []


def test_a_reduction_that_came_to_nothing_is_asked_for_again() -> None:
    desk = a_desk()
    reduce(desk, take(desk, positions=[a_position(40)]), a_tick())
    finish_deleverage(desk, desk.deleverages[0], "the venue refused", a_tick())
    assert desk.warning_texts == [f"reducing {BTC} failed: the venue refused"]
    assert rows(desk, DecisionType.CONTROL) == []
    reduce(desk, take(desk, positions=[a_position(40)]), a_tick())
    assert len(desk.deleverages) == 1
    finish_deleverage(desk, desk.deleverages[0], None, a_tick())
    assert desk.warning_texts == []


def test_a_reduction_of_what_is_closed_already_has_not_failed() -> None:
    """The incident behind it: a desk that a kill had flattened went on to warn that reducing it failed."""
    desk = a_desk()
    unknown = "The lot step of BTCUSDT is not known; nothing was sent."
    for refusal, warned in ((unknown, [f"reducing {BTC} failed: {unknown}"]), (None, [])):
        reduce(desk, take(desk, positions=[a_position(40)]), a_tick())
        (pending,) = desk.deleverages
        found = Reduction(refusal=refusal) if refusal else plan(an_observation(), BTC, D(1), automatic=True)
        nothing_to_send(desk, pending, found, a_tick())
        assert (desk.deleverages, desk.warning_texts) == ([], warned)


def test_a_whole_position_is_closed_though_the_lot_step_is_not_known() -> None:
    """A kill that flattens never ended while the exchange's list of rules could not be read, or no longer had the symbol."""
    held = an_observation(positions=[a_position("-1.2345")], rules={})
    for whole in (plan(held, BTC, D(1), automatic=True), plan(held, BTC, D(1), D(2)), plan(held, BTC, D(1))):
        assert whole.instruction
        assert (whole.instruction.side, whole.instruction.quantity) == (Side.BUY, D("1.2345"))
        assert (whole.instruction.reduce_only, whole.position) == (True, D("-1.2345"))
    for part in (plan(held, BTC, D("0.5")), plan(held, BTC, D(1), D(1), automatic=True)):
        assert (part.instruction, part.refusal) == (None, f"The lot step of {BTC} is not known; nothing was sent.")


def test_a_position_larger_than_the_largest_order_is_closed_in_whole_lots() -> None:
    """A largest order of 2.00055 is no number of lots: the venue refused it each time, and the kill never ended."""
    rules = {BTC: some_rules(max_quantity=D(100), market_max_quantity=D("2.00055"))}
    held = an_observation(positions=[a_position(5)], rules=rules)
    first = plan(held, BTC, D(1), automatic=True).instruction
    assert (first and first.quantity) == D(2)
    assert plan(held, BTC, D(1)).refusal == "5 BTCUSDT is more than the largest market order of 2; ask for less."


def test_a_paused_desk_reduces_too() -> None:
    desk = a_desk()
    apply(desk, a_command(PAUSE), a_tick())
    assert reduce(desk, take(desk, positions=[a_position(40)]), a_tick()) == [BTC]


def test_after_an_operators_kill_no_limit_sends_anything() -> None:
    desk = a_desk()
    reduce(desk, take(desk, positions=[a_position(40)]), a_tick())
    apply(desk, a_command(KILL), a_tick())
    assert not reducing(desk)
    assert reduce(desk, take(desk, positions=[a_position(80)]), a_tick()) == []
    assert not may_reduce(desk)


# --- kills ----------------------------------------------------------------------------------------------------------


def test_a_confirmed_breach_kills_with_source_risk_and_says_why() -> None:
    desk, first = breached()
    assert confirm(desk, first, reading(desk, 8_000).assessment, a_tick()) is None
    assert desk.state is State.KILLED
    assert desk.kill
    assert (desk.kill.source, desk.actor) == (Source.RISK, "risk")
    assert desk.reason == "drawdown_breached: 0.2 >= 0.1; daily_loss_breached: 0.2 >= 0.05"
    (killed,) = rows(desk, DecisionType.CONTROL)
    assert killed.summary == f"kill applied by risk: {desk.reason}"
    assert killed.source == "risk"
    assert len([row for row in rows(desk) if "hard limit" in row.summary]) == 2
    assert [cancel.symbol for cancel in desk.cancels] == [BTC, BTC]


def test_a_breach_that_a_second_reading_does_not_show_does_not_kill() -> None:
    desk, first = breached()
    hold = confirm(desk, first, reading(desk, 10_000).assessment, a_tick())
    assert hold == (
        "a hard limit (drawdown_breached: 0.2 >= 0.1, daily_loss_breached: 0.2 >= 0.05) is not confirmed by a second reading"
    )
    assert desk.state is State.RUNNING
    assert desk.warning_texts == [hold]
    take(desk)
    assert desk.warning_texts == []


def test_a_breach_that_cannot_be_read_again_allows_no_order_and_does_not_kill() -> None:
    desk, first = breached()
    hold = confirm(desk, first, None, a_tick())
    assert hold
    assert "could not be confirmed" in hold
    assert desk.state is State.RUNNING


def test_a_kill_of_the_limits_goes_on_reducing() -> None:
    """Else the account would lose more than its hard limit, and one bar, with its positions open."""
    desk, first = breached(positions=[a_position(20)])
    confirm(desk, first, reading(desk, 8_000, positions=[a_position(20)]).assessment, a_tick())
    assert reduce(desk, first, a_tick()) == [BTC]
    assert [d.quantity for d in desk.deleverages] == [D(20)]


def test_a_hard_limit_reached_while_killed_is_reported_once() -> None:
    desk = a_desk()
    take(desk)
    apply(desk, a_command(KILL), a_tick())
    for _ in range(2):
        take(desk, 8_000)
    assert [row.summary for row in rows(desk) if "hard" in row.summary] == [
        "Drawdown 20 % has reached its hard limit of 10 %: the desk is killed already",
        "Loss of the day 20 % has reached its hard limit of 5 %: the desk is killed already",
    ]
    assert desk.risk.levels["drawdown"] is Level.HARD
    assert desk.kill_number == 1


def restart(desk: Carried) -> None:
    """What `ais restart` does, once everything is written."""
    batch_written(desk, next_batch(desk))
    desk_row_written(desk, desk_row(desk))
    cancels_confirmed(desk, [cancel.instruction_id for cancel in desk.cancels], NOW)
    apply(desk, a_command(CommandKind.RESTART, kill_number=desk.kill_number), a_tick())
    finish_restart(desk, None, a_tick())


def test_a_restart_measures_losses_anew() -> None:
    desk, first = breached(positions=[a_position(20)])
    confirm(desk, first, reading(desk, 8_000).assessment, a_tick())
    reduce(desk, first, a_tick())
    restart(desk)
    assert desk.state is State.RUNNING
    assert not reducing(desk), "a reduction of the old kill must not reach into the new life"
    assert take(desk, 8_000).breaches == []


def test_a_restart_does_not_forgive_a_position_that_is_too_large() -> None:
    desk = a_desk()
    first = take(desk, positions=[a_position(60)])
    confirm(desk, first, reading(desk, positions=[a_position(60)]).assessment, a_tick())
    restart(desk)
    assert [breach.limit for breach in take(desk, positions=[a_position(60)]).breaches] == ["position"]


# --- a kill that flattens -------------------------------------------------------------------------------------------


def killed_holding(**changes: Any) -> Carried:
    desk = a_desk(kill_flattens=True, symbols=[BTC, ETH], **changes)
    apply(desk, a_command(KILL, "k"), a_tick())
    return desk


def test_by_default_a_kill_leaves_positions_alone() -> None:
    desk = a_desk()
    apply(desk, a_command(KILL), a_tick())
    assert not flattening(desk)


def test_a_position_is_closed_once_its_cancels_are_confirmed() -> None:
    desk = killed_holding()
    held = reading(desk, positions=[a_position(2), a_position(-3, ETH)])
    mine = [c.instruction_id for c in desk.cancels if c.symbol == ETH]
    cancels_confirmed(desk, mine, NOW)
    assert not flatten(desk, held, a_tick())
    assert [(d.symbol, d.reduce_pct, d.automatic) for d in desk.deleverages] == [(ETH, D(1), True)]


def test_a_desk_is_flat_only_when_a_fresh_reading_shows_no_position() -> None:
    desk = killed_holding()
    cancels_confirmed(desk, [c.instruction_id for c in desk.cancels], NOW)
    assert not flatten(desk, reading(desk, positions=[a_position(2)]), a_tick())
    assert not flatten(desk, reading(desk), a_tick()), "its order is still on its way"
    finish_deleverage(desk, desk.deleverages[0], None, a_tick())
    assert not flatten(desk, reading(desk, positions=[a_position("0.5")]), a_tick()), "filled in part"
    finish_deleverage(desk, desk.deleverages[0], None, a_tick())
    assert flatten(desk, reading(desk, observed_at=NOW + timedelta(seconds=9)), a_tick())
    assert desk.kill
    assert desk.kill.flat_at == NOW + timedelta(seconds=9)
    assert not flattening(desk)
    assert rows(desk)[-1].summary == "Kill 1 has flattened the desk: no futures position is left at the venue"


class Counted(list[PendingDeleverage]):
    """How often it was gone through."""

    passes = 0

    def __iter__(self) -> Iterator[PendingDeleverage]:
        self.passes += 1
        return super().__iter__()


def test_what_may_be_closed_next_is_found_in_one_pass_however_many_positions_there_are() -> None:
    """A run looks for it after each event. When each symbol searched the list, 200 positions took seconds of its tasks."""
    desk = killed_holding()
    cancels_confirmed(desk, [c.instruction_id for c in desk.cancels], NOW)
    flatten(desk, reading(desk, positions=[a_position(2, f"S{number}USDT") for number in range(200)]), a_tick())
    desk.deleverages[3].order_id, desk.deleverages[5].automatic = "ord", False
    desk.deleverages = waiting = Counted(desk.deleverages)
    issue_cancels(desk, next(iter(desk.commands.values())), ["S4USDT", "S5USDT"], a_tick())
    due = due_deleverages(desk)
    assert (len(waiting), waiting.passes) == (200, 1)
    assert {f"S{number}USDT" for number in range(200)}.difference(due) == {"S3USDT", "S4USDT"}
    assert due == [each.symbol for each in waiting if next_deleverage(desk, each.symbol)]


def test_a_repeated_kill_does_not_begin_the_flattening_anew_and_a_restart_ends_it() -> None:
    desk = killed_holding()
    cancels_confirmed(desk, [c.instruction_id for c in desk.cancels], NOW)
    flatten(desk, reading(desk, positions=[a_position(2)]), a_tick())
    restart(desk)
    assert not flattening(desk)
    assert not reducing(desk)


@pytest.mark.parametrize(
    ("filled", "fate", "goes_on"),
    [("1", Fate.CANCELED, True), ("1", Fate.FILLED, True), ("2", Fate.FILLED, False), ("0", Fate.CANCELED, False)],
)
def test_after_a_partial_fill_the_next_closing_order_follows_at_once(filled: str, fate: Fate, goes_on: bool) -> None:
    """No reading is waited for; an order that did nothing is no progress, and the next reading asks for it again."""
    desk = killed_holding()
    cancels_confirmed(desk, [c.instruction_id for c in desk.cancels], NOW)
    flatten(desk, reading(desk, positions=[a_position(2)]), a_tick())
    sized = plan(reading(desk, positions=[a_position(2)]), BTC, D(1))
    placed = reduction_prepared(desk, desk.deleverages[0], sized, a_tick())
    take_report(
        desk,
        placed,
        OrderReport(order_id=placed.order.order_id, fate=fate, detail="told", filled_quantity=D(filled)),
        a_tick(),
    )
    assert [d.order_id for d in desk.deleverages] == ([None] if goes_on else [])


def test_a_limit_that_only_a_newer_worker_knows_is_shown_and_fails_nothing() -> None:
    """Its reading may be taken in by a worker of this release: an error would fail every task of the run, a kill's too."""
    desk = a_desk()
    found = take(desk)
    crossings = [
        Crossing(limit="turn_over", level=level, value=D(3), bound=D(2)) for level in (Level.WARN_90, Level.SOFT)
    ]
    memory = found.memory.model_copy(update={"levels": {"turn_over": Level.SOFT}})
    cut = Cut(symbol=BTC, quantity=D(1), limits=["turn_over"])
    newer = found.model_copy(update={"memory": memory, "crossings": crossings, "cuts": [cut]})
    take_assessment(desk, newer, a_tick())
    assert reduce(desk, newer, a_tick()) == [BTC]
    assert rows(desk)[-1].summary.startswith(
        "Turn over 300 % has passed its soft limit of 200 %: reducing BTCUSDT by 1"
    )
    assert "turn over: **past its soft limit**" in details(desk)
    status_of(desk, "run")
