"""The checker, rule by rule: what is sound passes, and each rule sees what it is there for in a record that is broken by hand."""

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.chaos import recorder as r
from tests.chaos.checker import RULES, check
from tests.chaos.evidence import Change, Event, Evidence, VenueOrder, Version
from tests.chaos.reading import Reading
from tests.chaos.recorder import Note
from tests.chaos.records import BEGAN, Script, a_sound_round, call_of, event_of, instruction_of, row_of
from tests.chaos.schedule import BY_HAND_IN_THE_DATABASE

Breaks = Callable[[Evidence], object]
BREAKS: dict[str, list[Breaks]] = {}


def breaks(rule: str) -> Callable[[Breaks], Breaks]:
    """Marks a way to break a record, and the rule that has to see it."""

    def mark(function: Breaks) -> Breaks:
        BREAKS.setdefault(rule, []).append(function)
        return function

    return mark


def violated(e: Evidence) -> set[str]:
    return {violation.rule for violation in check(e)}


def test_a_sound_round_passes() -> None:
    assert check(a_sound_round()) == []


def test_every_rule_has_a_record_that_breaks_it() -> None:
    assert {rule.__name__ for rules in RULES.values() for rule in rules} == BREAKS.keys()


# --- I1 ----------------------------------------------------------------------------------------------------------------


@breaks("every_acknowledged_command_has_its_outcome")
def the_row_of_a_pause_is_missing(e: Evidence) -> None:
    e.decisions.remove(row_of(e, "why-p1"))


@breaks("every_acknowledged_command_has_its_outcome")
def the_row_says_something_else(e: Evidence) -> None:
    row_of(e, "why-p1")["summary"] = "pause refused by http: killed"


@breaks("every_recorded_signal_is_dealt_with")
def a_signal_of_which_nobody_was_told_has_no_row(e: Evidence) -> None:
    signal = copy.copy(event_of(e, "signal", "pause"))
    signal.payload = {"command_id": "unheard"}
    e.events.append(signal)


@breaks("every_kill_signal_kills")
def a_kill_without_any_input_is_in_the_history_alone(e: Evidence) -> None:
    signal = copy.copy(event_of(e, "signal", "kill"))
    signal.payload = None
    e.events.append(signal)


@breaks("every_kill_signal_kills")
def two_kills_that_cannot_be_read_have_one_row(e: Evidence) -> None:
    for at, payload in ((7.5, b"\x80"), (7.6, [7])):
        signal = copy.copy(event_of(e, "signal", "kill"))
        signal.at, signal.payload = BEGAN + at, payload
        e.events.append(signal)
    a_kill_of_nobody(e, 7.7)


@breaks("every_recorded_signal_is_dealt_with")
def a_kill_whose_input_is_a_text_has_no_row(e: Evidence) -> None:
    signal = copy.copy(event_of(e, "signal", "kill"))
    signal.payload = "flash crash"
    e.events.append(signal)


@breaks("every_command_can_be_looked_up")
def an_applied_command_is_told_as_refused(e: Evidence) -> None:
    e.outcomes["p1"] = "refused"


@breaks("every_command_can_be_looked_up")
def nobody_knows_a_kill_that_was_answered(e: Evidence) -> None:
    del e.outcomes["k1"]


@breaks("every_run_can_be_replayed")
def a_worker_cannot_carry_a_run_on(e: Evidence) -> None:
    e.unreplayable["a-run"] = "[TMPRL1100] Nondeterminism error"


@breaks("the_audit_chain_is_whole")
def a_row_is_not_in_the_chain(e: Evidence) -> None:
    e.audit.append("2 faults: a row of the log has no entry")


@breaks("every_cancellation_kills")
def a_cancellation_has_no_kill(e: Evidence) -> None:
    e.decisions.remove(row_of(e, "cancel-1"))


@breaks("every_cancellation_kills")
def a_cancellation_is_in_no_run(e: Evidence) -> None:
    e.events.remove(event_of(e, "cancel_requested"))


@breaks("the_workflow_never_breaks")
def a_workflow_task_fails(e: Evidence) -> None:
    event = copy.copy(event_of(e, "signal", "pause"))
    event.kind, event.name, event.payload = "task_failed", "WORKFLOW_WORKER_UNHANDLED_FAILURE", "KeyError: 'state'"
    e.events.append(event)


@breaks("the_workflow_never_breaks")
def the_coordinator_ends(e: Evidence) -> None:
    event = copy.copy(event_of(e, "signal", "pause"))
    event.kind, event.name = "ended", "WORKFLOW_EXECUTION_FAILED"
    e.events.append(event)


@breaks("everything_comes_to_an_end")
def it_never_settles(e: Evidence) -> None:
    e.settled_at, e.left = None, "rows are unwritten"


# --- I2 ----------------------------------------------------------------------------------------------------------------


@breaks("commands_on_the_state_are_linearizable")
def a_killed_desk_is_read_as_running(e: Evidence) -> None:
    next(call for call in e.calls if call.state == "killed").state = "running"


@breaks("commands_on_the_state_are_linearizable")
def a_resume_of_a_killed_desk_is_told_as_done(e: Evidence) -> None:
    call = copy.copy(call_of(e, "r1"))
    call.start, call.end = BEGAN + 4.4, BEGAN + 4.5
    e.calls.append(call)


@breaks("the_log_is_a_way_through_the_table")
def the_log_has_a_pause_of_a_killed_desk(e: Evidence) -> None:
    row_of(e, "why-p1")["timestamp"] += timedelta(seconds=2.5)


@breaks("only_a_restart_clears_the_latch")
def nobody_clears_the_latch(e: Evidence) -> None:
    next(c for c in e.changes if c.place == "public.desks" and c.row["cleared_by"]).row["cleared_by"] = "decision_0"


@breaks("only_a_restart_clears_the_latch")
def the_number_of_kills_falls(e: Evidence) -> None:
    [c for c in e.changes if c.place == "public.desks"][-1].row["kill_number"] = 1


@breaks("both_places_agree_in_the_end")
def the_database_does_not_know_of_the_kill(e: Evidence) -> None:
    e.desk_row["killed"] = False


# --- I3 ----------------------------------------------------------------------------------------------------------------


def an_order_at(e: Evidence, at: float) -> VenueOrder:
    order = e.orders[1]
    order.at, order.committed, order.not_after = BEGAN + at, BEGAN + at + 0.01, BEGAN + at + 0.4
    return order


@breaks("no_order_after_a_kill")
def an_order_is_begun_after_the_kill(e: Evidence) -> None:
    an_order_at(e, 4.6)
    for event in e.events:
        if event.kind == "started" and 3.0 < event.at - BEGAN < 3.6:
            event.at = BEGAN + 4.5


@breaks("no_order_after_a_kill")
def an_order_goes_out_by_a_permission_from_after_the_kill(e: Evidence) -> None:
    an_order_at(e, 4.6).not_after = BEGAN + 5.5


@breaks("no_order_after_a_kill")
def an_order_reaches_a_real_venue_long_after_the_kill(e: Evidence) -> None:
    instruction_of(e, "ord_2")["venue_order_id"] = "ord_2"
    instruction_of(e, "ord_1")["venue_order_id"] = "ord_1"
    e.live = True
    order = e.orders[1]
    order.at, order.committed, order.not_after = BEGAN + 5.9, None, None


@breaks("no_order_while_the_database_says_killed")
def an_order_is_begun_after_somebody_has_killed_in_the_database(e: Evidence) -> None:
    e.changes.insert(0, Change(0, BEGAN + 3.3, BEGAN + 3.3, "public.desks", "UPDATE", e.desk_row | {"kill_number": 0}))


def test_an_order_that_had_begun_when_somebody_killed_in_the_database_may_arrive() -> None:
    e = a_sound_round()
    an_order_is_begun_after_somebody_has_killed_in_the_database(e)
    e.changes[0].committed = BEGAN + 3.54
    assert "no_order_while_the_database_says_killed" not in violated(e)


@breaks("every_kill_cancels_everything")
def a_kill_cancels_one_market_only(e: Evidence) -> None:
    for event in e.events:
        if event.name == "cancel_many" and event.at > BEGAN + 7:
            event.payload = {"cancels": event.payload["cancels"][:1]}


@breaks("nothing_rests_after_a_kill")
def an_order_still_rests(e: Evidence) -> None:
    e.orders[0].status = "open"


# --- I4 ----------------------------------------------------------------------------------------------------------------


@breaks("every_order_is_sent_once")
def an_order_is_sent_again(e: Evidence) -> None:
    e.events.append(copy.copy(event_of(e, "scheduled", "place_order")))


@breaks("every_order_is_sent_once")
def an_order_may_be_attempted_twice(e: Evidence) -> None:
    event_of(e, "scheduled", "place_order").most_attempts = 2


@breaks("the_venue_knows_no_order_twice")
def the_venue_has_an_order_that_nobody_sent(e: Evidence) -> None:
    e.orders.append(copy.copy(e.orders[0]))
    e.orders[-1].order_id = "ord_4"


@breaks("the_venue_knows_no_order_twice")
def two_orders_claim_one_of_the_venue(e: Evidence) -> None:
    for name in ("ord_1", "ord_2"):
        instruction_of(e, name)["venue_order_id"] = "1000"


@breaks("the_venue_took_what_is_told_as_confirmed")
def one_order_is_told_as_confirmed_and_the_venue_took_two(e: Evidence) -> None:
    instruction_of(e, "ord_1")["outcome"] = "failed"


@breaks("an_agent_has_one_order_a_symbol")
def an_order_comes_while_the_one_that_it_replaces_rests(e: Evidence) -> None:
    e.orders[1].versions[0].status = "open"


@breaks("every_command_is_carried_out_once")
def a_repeated_command_is_carried_out_again(e: Evidence) -> None:
    e.decisions.append(row_of(e, "why-r1") | {"summary": "resume repeated by http: why-r1"})


@breaks("an_outcome_stands")
def a_confirmed_cancel_is_prepared_again(e: Evidence) -> None:
    change = copy.copy(next(c for c in e.changes if c.row.get("outcome") == "confirmed"))
    change.row = change.row | {"outcome": "prepared"}
    e.changes.append(change)


@breaks("every_cancel_is_confirmed")
def a_cancel_is_forgotten(e: Evidence) -> None:
    instruction_of(e, "k2")["outcome"] = "prepared"


# --- I5 ----------------------------------------------------------------------------------------------------------------


@breaks("every_decision_is_committed_before_its_order")
def a_decision_is_committed_after_its_order(e: Evidence) -> None:
    next(c for c in e.changes if c.row.get("selected_order_id") == "ord_1").committed += 1.0


@breaks("every_decision_is_committed_before_its_order")
def a_decision_is_never_committed(e: Evidence) -> None:
    e.changes.remove(next(c for c in e.changes if c.row.get("selected_order_id") == "ord_1"))


@breaks("every_send_follows_its_commit")
def the_record_comes_after_the_send(e: Evidence) -> None:
    record = event_of(e, "scheduled", "record")
    e.events.remove(record)
    e.events.append(record)


@breaks("no_cancel_waits_for_the_database")
def a_cancel_waits_until_the_row_is_written(e: Evidence) -> None:
    s = Script()
    s._number = 900
    s.activity(7.055, "write_desk", {})
    at = next(n for n, event in enumerate(e.events) if event.name == "cancel_many" and event.at > BEGAN + 7)
    e.events[at:at] = s.e.events


# --- I6 ----------------------------------------------------------------------------------------------------------------


@breaks("what_is_acknowledged_is_in_the_history")
def a_command_is_acknowledged_before_it_is_recorded(e: Evidence) -> None:
    event_of(e, "signal", "pause").at = BEGAN + 2.9


@breaks("a_key_is_the_id_of_its_command")
def a_command_with_a_key_gets_another_id(e: Evidence) -> None:
    call_of(e, "c1").key = "mine"


@breaks("a_key_belongs_to_one_command")
def a_resume_under_the_key_of_a_pause_is_answered_as_the_pause(e: Evidence) -> None:
    call_of(e, "r1").key = "p1"


def test_whoever_takes_the_key_of_another_command_may_be_told_so_or_that_it_is_recorded() -> None:
    e = a_sound_round()
    for answer in (r.INVALID, r.ACCEPTED):
        a_resume_under_the_key_of_a_pause_is_answered_as_the_pause(e)
        call_of(e, "r1").answer = answer
        assert "a_key_belongs_to_one_command" not in violated(e)


@breaks("the_limits_that_were_applied_are_the_desks")
def limits_are_answered_and_forgotten(e: Evidence) -> None:
    e.decisions.remove(row_of(e, "operator-restart"))
    assert e.status
    e.status["limits"] = {"max_leverage": "2"}


@breaks("every_row_names_its_sender")
def a_command_over_http_is_told_as_a_signal(e: Evidence) -> None:
    row = row_of(e, "why-p1")
    row["summary"] = row["summary"].replace("by http:", "by temporal:")


@breaks("a_restart_is_told_as_done_once_the_latch_is_cleared")
def a_restart_is_told_as_done_and_its_latch_is_cleared_later(e: Evidence) -> None:
    event_of(e, "scheduled", "clear_latch").name = "read_latch"


@breaks("what_is_not_recorded_never_happens")
def what_was_not_recorded_takes_effect(e: Evidence) -> None:
    call_of(e, "p1").answer = r.NOT_RECORDED


@breaks("every_order_has_the_fate_that_is_told_of_it")
def a_failed_order_is_at_the_venue(e: Evidence) -> None:
    instruction_of(e, "ord_1")["outcome"] = "failed"


@breaks("every_order_has_the_fate_that_is_told_of_it")
def a_confirmed_order_is_not_at_the_venue(e: Evidence) -> None:
    e.orders.pop(0)


@breaks("every_confirmed_cancel_was_confirmed")
def a_cancel_that_failed_is_told_as_confirmed(e: Evidence) -> None:
    event_of(e, "completed", nth=-2).payload = [{"done": True, "error": "HTTP 503"}, {"done": True}]


@breaks("a_confirmed_cancel_left_nothing")
def a_confirmed_cancel_did_nothing(e: Evidence) -> None:
    e.orders[2].versions.pop()


@breaks("a_confirmed_cancel_left_nothing")
def an_order_fills_after_its_cancel_was_confirmed(e: Evidence) -> None:
    e.orders[2].versions.append(Version(BEGAN + 4.2, BEGAN + 4.2, "filled", 1.0))


@breaks("every_report_is_what_the_venue_had")
def a_fill_is_made_up(e: Evidence) -> None:
    report_of(e, "ord_2")["filled_quantity"] = "2"


@breaks("every_report_is_what_the_venue_had")
def an_order_that_rests_is_told_as_filled(e: Evidence) -> None:
    report_of(e, "ord_3")["fate"] = "filled"


@breaks("every_deleverage_that_was_applied_reduced")
def an_applied_deleverage_has_no_order(e: Evidence) -> None:
    row_of(e, "why-p1")["summary"] = "deleverage applied by http: why-p1"


@breaks("every_reading_shows_what_the_venue_had")
def a_reading_misses_an_order(e: Evidence) -> None:
    the_reading(e)["open_orders"].clear()


@breaks("every_reading_shows_what_the_venue_had")
def a_reading_shows_another_position(e: Evidence) -> None:
    the_reading(e)["positions"][0]["quantity"] = "1"


def report_of(e: Evidence, name: str) -> dict[str, Any]:
    reports = (event.payload for event in e.events if event.kind == "completed" and isinstance(event.payload, dict))
    return next(report for report in reports if report.get("order_id") == name)


def the_reading(e: Evidence) -> dict[str, Any]:
    return Reading(e).named("observe")[0].result


@breaks("a_verified_kill_left_nothing")
def a_verified_kill_left_an_order(e: Evidence) -> None:
    e.orders[0].status = "open"


# --- I7 ----------------------------------------------------------------------------------------------------------------


@breaks("no_order_while_paused")
def an_order_is_begun_while_the_desk_is_paused(e: Evidence) -> None:
    an_order_at(e, 2.6).not_after = BEGAN + 4.6


@breaks("strangers_are_turned_away")
def a_stranger_is_let_in(e: Evidence) -> None:
    call_of(e, "stranger-kill").status = 200


@breaks("strangers_are_turned_away")
def what_a_stranger_said_is_recorded(e: Evidence) -> None:
    event_of(e, "signal", "pause").payload["reason"] = "stranger-kill"


@breaks("every_order_passed_the_guards")
def an_order_was_refused_by_the_guards(e: Evidence) -> None:
    row = next(row for row in e.decisions if row["selected_order_id"] == "ord_1")
    row["risk_passed"], row["risk_reasons"] = False, ["leverage"]


@breaks("every_order_passed_the_guards")
def an_order_is_of_a_strange_symbol(e: Evidence) -> None:
    e.orders[0].symbol = "DOGEUSDT"


@breaks("a_kill_is_verified_by_a_reading")
def a_kill_is_verified_while_the_fate_of_an_order_is_unknown(e: Evidence) -> None:
    sent = event_of(e, "scheduled", "place_order")
    done = next(event for event in e.events if event.kind == "completed" and event.scheduled == sent.number)
    done.payload = done.payload | {"fate": "unknown"}


@breaks("no_order_outlives_its_time")
def an_order_is_late(e: Evidence) -> None:
    e.orders[0].not_after = e.orders[0].at - 0.5


@breaks("every_order_is_as_it_was_written_down")
def the_venue_has_more_than_was_written_down(e: Evidence) -> None:
    e.orders[0].quantity = 2.0


@breaks("every_order_is_as_it_was_written_down")
def the_venue_has_another_price(e: Evidence) -> None:
    e.orders[2].price = 91.0


@breaks("every_reduction_is_of_what_is_held")
def a_reduction_is_of_another_position(e: Evidence) -> None:
    the_plan(e)["position"] = "4"


@breaks("every_reduction_is_of_what_is_held")
def a_reduction_takes_more_than_was_asked_for(e: Evidence) -> None:
    the_plan(e)["instruction"]["quantity"] = "1.5"


@breaks("every_reduction_is_of_what_is_held")
def a_reduction_adds(e: Evidence) -> None:
    the_plan(e)["instruction"]["side"] = "BUY"


@breaks("every_reduction_is_of_what_is_held")
def a_position_is_overlooked(e: Evidence) -> None:
    the_plan(e).update(instruction=None, closed=True)


def the_plan(e: Evidence) -> dict[str, Any]:
    return Reading(e).named("plan_deleverage")[0].result


# --- I8 ----------------------------------------------------------------------------------------------------------------


@breaks("a_kill_over_http_is_answered_in_time")
def a_kill_takes_long(e: Evidence) -> None:
    call = call_of(e, "k2")
    call.end = call.start + 7.0


@breaks("a_kill_over_http_is_answered_in_time")
def a_kill_is_not_acknowledged(e: Evidence) -> None:
    call_of(e, "k2").answer = r.UNKNOWN


@breaks("a_kill_acts_at_once")
def the_cancels_are_late(e: Evidence) -> None:
    for event in e.events:
        if event.name == "cancel_many" and event.at > BEGAN + 7:
            event.at += 10.0


# --- proposals, limits, numbers, and what a kill has to do twice ----------------------------------------------------------


@breaks("every_proposal_has_an_outcome")
def a_proposal_waits_for_ever(e: Evidence) -> None:
    e.outcomes["q1"] = "pending"


@breaks("every_proposal_has_an_outcome")
def a_proposal_is_forgotten(e: Evidence) -> None:
    e.outcomes = {"another": "applied"}


@breaks("the_log_is_a_way_through_the_table")
def an_order_is_decided_between_a_kill_and_the_restart(e: Evidence) -> None:
    row_of(e, "Selected")["timestamp"] += timedelta(seconds=4.5)


@breaks("the_log_is_a_way_through_the_table")
def the_last_state_is_not_where_the_log_leads(e: Evidence) -> None:
    assert e.status
    e.status["state"] = "running"


@breaks("every_kill_has_a_number_of_its_own")
def a_repeated_kill_has_the_number_of_the_one_before(e: Evidence) -> None:
    assert e.status
    e.status["kill_number"] = 2


@breaks("every_cancel_all_cancels_what_it_names")
def a_cancel_all_leaves_a_market_out(e: Evidence) -> None:
    e.instructions.remove(instruction_of(e, "c1:1:cancel_spot"))
    many = next(event for event in e.events if event.name == "cancel_many")
    del many.payload["cancels"][1:]
    for event in [event for event in e.events if event.name == "cancel_many"][1:]:
        event.at += 10.0


@breaks("what_was_in_flight_at_a_kill_is_canceled_again")
def nothing_is_canceled_once_an_orders_fate_is_known(e: Evidence) -> None:
    sent = event_of(e, "scheduled", "place_order", 1)
    told = next(event for event in e.events if event.kind == "completed" and event.scheduled == sent.number)
    e.events.remove(told)
    told.at = BEGAN + 8.5
    e.events.append(told)


@breaks("a_deleverage_reduces_once")
def a_deleverage_becomes_two_orders(e: Evidence) -> None:
    e.events.append(copy.copy(event_of(e, "signal", "pause")))
    e.events[-1].name, e.events[-1].payload = "deleverage", {"command_id": "d1"}
    for nth in range(2):
        event_of(e, "scheduled", "place_order", nth).payload["order"]["command_id"] = "d1"


@breaks("no_reduction_waits_for_the_database")
def a_reduction_waits_for_its_row(e: Evidence) -> None:
    planned = event_of(e, "scheduled", "plan_deleverage")
    end = next(n for n, event in enumerate(e.events) if event.kind == "completed" and event.scheduled == planned.number)
    call = copy.copy(event_of(e, "scheduled", "record"))
    call.number = 9_000
    done = copy.copy(e.events[end])
    done.scheduled = call.number
    e.events[end + 1 : end + 1] = [call, done]


@breaks("a_kill_is_verified_by_a_reading")
def no_reading_verifies_a_kill(e: Evidence) -> None:
    assert e.status
    e.status["kill"]["verified_at"] = "1970-01-12T13:46:48.500000+00:00"


@breaks("a_kill_is_verified_by_a_reading")
def a_kill_is_verified_before_its_cancels_are_confirmed(e: Evidence) -> None:
    last = [event for event in e.events if event.name == "cancel_many"][-1]
    done = next(event for event in e.events if event.kind == "completed" and event.scheduled == last.number)
    e.events.remove(done)
    e.events.append(done)


@breaks("no_order_outlives_its_time")
def an_order_has_more_time_than_a_cycle(e: Evidence) -> None:
    order = event_of(e, "scheduled", "place_order").payload["order"]
    order["not_after"] = order["prepared_at"].replace("13:46:40", "13:46:50")


@breaks("no_order_under_limits_of_before")
def an_order_was_decided_under_other_limits(e: Evidence) -> None:
    event_of(e, "scheduled", "decide", 1).payload["limits"]["max_leverage"] = "1.9"


@breaks("every_command_is_carried_out_once")
def a_command_is_carried_out_again_after_a_restart(e: Evidence) -> None:
    e.decisions.append(row_of(e, "why-c1") | {"decision_id": "again", "timestamp": row_of(e, "why-k2")["timestamp"]})


@breaks("strangers_are_turned_away")
def a_viewer_kills(e: Evidence) -> None:
    call = call_of(e, "stranger-kill")
    call.args["key"], call.status = "viewer", 200


@breaks("a_revoked_key_opens_nothing")
def a_revoked_key_opens(e: Evidence) -> None:
    e.revoked_at = BEGAN - 10.0
    call = call_of(e, "stranger-kill")
    call.kind, call.args["key"], call.status = "status", "former", 200


# --- what operators are told, keys, limits, and memory -------------------------------------------------------------------------


@breaks("what_is_told_as_done_was_carried_out")
def a_pause_is_told_as_done_before_a_worker_has_seen_it(e: Evidence) -> None:
    for event in e.events:
        if event.kind == "task_completed" and event.at > BEGAN + 1.9:
            event.at += 10.0


def somebody_looks(e: Evidence, **told: Any) -> None:
    s = Script()
    s.call(8.5, "look", client="watcher", state="killed", args={"api": 0, **told})
    e.calls += s.e.calls


@breaks("what_the_status_told_of_commands_is_in_the_log")
def the_status_tells_of_a_restart_that_is_refused_then(e: Evidence) -> None:
    somebody_looks(e, last={"decision_id": "decision_x", "summary": "restart applied by cli: why"})


@breaks("what_the_status_told_of_commands_is_in_the_log")
def the_status_tells_of_a_restart_before_the_latch_is_cleared(e: Evidence) -> None:
    s = Script()
    s.call(5.9, "look", client="watcher", state="killed", args={"last": row_of(e, "restart applied")})
    e.calls += s.e.calls


def test_the_status_may_tell_of_a_restart_that_is_over() -> None:
    e = a_sound_round()
    somebody_looks(e, last=row_of(e, "restart applied"))
    assert violated(e) == set()


def test_the_status_may_tell_of_a_cycle_whose_row_is_one_with_others() -> None:
    e = a_sound_round()
    somebody_looks(e, last={"decision_id": "decision_x", "summary": "No proposals"})
    somebody_looks(e, last=row_of(e, "why-p1"), verified_at=None)
    assert violated(e) == set()


@breaks("a_verified_kill_left_nothing")
def a_kill_is_told_as_verified_while_the_order_of_somebody_else_rests(e: Evidence) -> None:
    s = Script()
    s.call(8.5, "verification", client="scene", state="verified", args={"rests": 1})
    e.calls += s.e.calls


@breaks("a_kill_is_verified_by_a_reading")
def the_status_told_in_between_that_a_kill_is_verified(e: Evidence) -> None:
    somebody_looks(e, verified_at="1970-01-12T13:46:44.200000+00:00")


@breaks("the_report_has_every_row_once")
def a_row_is_between_two_pages(e: Evidence) -> None:
    e.reported = [row["decision_id"] for row in e.decisions[:-1]]


@breaks("the_report_has_every_row_once")
def a_row_is_on_two_pages(e: Evidence) -> None:
    e.reported = [row["decision_id"] for row in (*e.decisions, e.decisions[0])]


@breaks("every_row_names_its_sender")
def what_a_colleague_does_is_told_as_the_administrators(e: Evidence) -> None:
    call_of(e, "p1").args["holder"] = "colleague"


@breaks("strangers_are_turned_away")
def a_colleague_changes_limits(e: Evidence) -> None:
    call = call_of(e, "stranger-kill")
    call.kind, call.args["key"], call.status = "set_limits", "colleague", 200


@breaks("only_a_restart_clears_the_latch")
def a_restart_clears_another_kill_than_it_names(e: Evidence) -> None:
    signal = copy.copy(event_of(e, "signal", "pause"))
    signal.name, signal.payload = "restart", {"command_id": "restart-1", "kill_number": 1}
    e.events.append(signal)


@breaks("both_places_agree_in_the_end")
def the_database_names_somebody_else(e: Evidence) -> None:
    e.desk_row["actor"] = "http"


@breaks("both_places_agree_in_the_end")
def the_database_does_not_know_that_the_cancels_were_confirmed(e: Evidence) -> None:
    e.desk_row["quiet_at"] = None


@breaks("commands_on_the_state_are_linearizable")
def a_kill_that_was_written_by_hand_is_not_taken_over(e: Evidence) -> None:
    row = {"killed": True, "kill_number": 0, "cleared_by": None, "reason": BY_HAND_IN_THE_DATABASE}
    e.changes.insert(0, Change(0, BEGAN - 8.0, BEGAN - 8.0, "public.desks", "UPDATE", row))


def test_a_database_that_was_away_excuses_a_kill_that_was_written_by_hand() -> None:
    e = a_sound_round()
    a_kill_that_was_written_by_hand_is_not_taken_over(e)
    e.notes.append(Note(BEGAN - 7.0, "database: stop", "database stop", "database", BEGAN - 6.0))
    assert "commands_on_the_state_are_linearizable" not in violated(e)


@breaks("a_kill_is_refused_only_by_a_killed_desk")
def a_kill_of_a_paused_desk_is_refused_for_its_id(e: Evidence) -> None:
    moment = row_of(e, "why-p1")["timestamp"] + timedelta(seconds=0.5)
    summary = "kill refused by http: the command id was used for another command"
    e.decisions.append(row_of(e, "why-p1") | {"decision_id": "decision_x", "timestamp": moment, "summary": summary})


@breaks("a_kill_without_a_row_finds_a_killed_desk")
def a_kill_from_before_a_restart_comes_again_and_does_nothing(e: Evidence) -> None:
    call = copy.copy(call_of(e, "k1"))
    call.start, call.end = BEGAN + 6.5, BEGAN + 6.6
    e.calls.append(call)
    row_of(e, "Selected")["timestamp"] += timedelta(seconds=5.35)


def test_a_killed_desk_need_not_note_a_kill_that_comes_again() -> None:
    e = a_sound_round()
    call = copy.copy(call_of(e, "k1"))
    call.start, call.end = BEGAN + 4.5, BEGAN + 4.6
    e.calls.append(call)
    assert violated(e) == set()


def test_a_killed_desk_may_refuse_a_kill_under_the_id_of_another_command() -> None:
    e = a_sound_round()
    summary = "kill refused by http: the command id was used for another command"
    call = copy.copy(call_of(e, "k2"))
    call.start, call.end = BEGAN + 7.4, BEGAN + 7.5
    call.command_id, call.answer, call.status, call.told = "p1", r.INVALID, 422, "this key was used for another command"
    e.calls.append(call)
    signal = copy.copy(event_of(e, "signal", "kill", 1))
    signal.at, signal.payload = BEGAN + 7.45, {"command_id": "p1", "reason": "again"}
    e.events.append(signal)
    e.decisions.append(row_of(e, "why-k2") | {"decision_id": "decision_x", "command_id": "p1", "summary": summary})
    assert violated(e) == set()


@breaks("no_order_passes_the_limit_of_a_position")
def two_orders_are_too_much_for_the_account(e: Evidence) -> None:
    s = Script()
    s._number = 2_000
    s.activity(0.9, "observe", {}, {"marks": {"BTCUSDT": "100"}, "account": {"balance": "500"}} | the_reading(e))
    e.events[:0] = s.e.events


@breaks("limits_are_loosened_only_while_paused")
def limits_are_loosened_while_the_desk_runs(e: Evidence) -> None:
    event_of(e, "signal", "set_limits").payload["limits"] = {"max_leverage": "2.5"}


def test_limits_may_be_loosened_while_the_desk_is_paused() -> None:
    e = a_sound_round()
    limits_are_loosened_while_the_desk_runs(e)
    row_of(e, "why-l1")["timestamp"] += timedelta(seconds=2.0)
    assert "limits_are_loosened_only_while_paused" not in violated(e)


def a_reading_with_the_peak(e: Evidence, at: float, peak: str | None) -> None:
    s = Script()
    s._number = 2_000 + int(10 * at)
    s.activity(at, "observe", {"risk": {"peak": peak}})
    e.events += s.e.events


@breaks("the_peak_of_the_account_stays")
def the_peak_of_the_account_is_forgotten(e: Evidence) -> None:
    a_reading_with_the_peak(e, 8.1, "1000")
    a_reading_with_the_peak(e, 8.3, None)


def a_cycle_finds_the_peak(e: Evidence, at: float, before: str, peak: str, doubts: tuple[str, ...] = ()) -> None:
    s = Script()
    s._number = 4_000 + int(10 * at)
    found = {"observed_at": "1970-01-12T13:46:40+00:00", "assessment": {"memory": {"peak": peak}}, "doubts": [*doubts]}
    found |= {"open_orders": [], "positions": []}
    s.activity(at, "observe", {"risk": {"peak": before}, "cycle_id": f"cycle at {at}"}, found)
    e.events += s.e.events


@breaks("the_peak_of_the_account_stays")
def a_cycle_forgets_what_the_one_before_found(e: Evidence) -> None:
    a_cycle_finds_the_peak(e, 8.1, "1000", "1001")
    a_cycle_finds_the_peak(e, 8.3, "1000", "1000")


def test_the_peak_of_a_reading_in_doubt_or_beside_the_cycles_is_not_remembered() -> None:
    e = a_sound_round()
    a_cycle_finds_the_peak(e, 8.1, "1000", "1001", ("two sources differ",))
    a_cycle_finds_the_peak(e, 8.3, "1000", "1001")
    a_reading_with_the_peak(e, 8.4, "1000")
    assert "the_peak_of_the_account_stays" not in violated(e)


def test_a_restart_begins_the_peak_of_the_account_anew() -> None:
    e = a_sound_round()
    a_reading_with_the_peak(e, 8.1, "1000")
    s = Script()
    s._number = 3_000
    s.activity(8.2, "clear_latch", {"row": {"decision_id": "decision_y"}}, True)
    e.events += s.e.events
    a_reading_with_the_peak(e, 8.3, None)
    assert "the_peak_of_the_account_stays" not in violated(e)


def a_reading_calls_for_a_cut(e: Evidence, at: float, **more: Any) -> None:
    s = Script()
    s._number = 5_000
    cuts = [{"symbol": "BTCUSDT", "quantity": "1", "limits": ["position"]}]
    found = {
        "observed_at": "1970-01-12T13:46:40+00:00",
        "assessment": {"cuts": cuts},
        "open_orders": [],
        "positions": [],
    }
    s.activity(at, "observe", {"cycle_id": "cycle"}, found | more)
    e.events += s.e.events
    e.healed_at = BEGAN + 30.0
    e.decisions = [row for row in e.decisions if not row["summary"].startswith("kill ")]


@breaks("what_passes_a_soft_limit_is_reduced")
def a_position_that_is_too_large_stays(e: Evidence) -> None:
    a_reading_calls_for_a_cut(e, 12.0)


@breaks("what_passes_a_hard_limit_kills")
def a_position_is_far_too_large_and_the_desk_runs(e: Evidence) -> None:
    a_reading_calls_for_a_cut(e, 12.0, assessment={"breaches": [{"reason": "position_too_large: 0.6 > 0.5"}]})


def test_a_kill_follows_what_passes_a_hard_limit() -> None:
    e = a_sound_round()
    kills = [row for row in e.decisions if row["summary"].startswith("kill ")]
    a_position_is_far_too_large_and_the_desk_runs(e)
    e.decisions += kills
    assert "what_passes_a_hard_limit_kills" not in violated(e)


def test_a_cut_may_be_under_way_or_a_kill_or_a_fault_may_come() -> None:
    for at in (3.0, 7.0):
        e = a_sound_round()
        a_reading_calls_for_a_cut(e, at)
        assert "what_passes_a_soft_limit_is_reduced" not in violated(e)
    a_reading_calls_for_a_cut(e, 12.0)
    assert "what_passes_a_soft_limit_is_reduced" in violated(e)
    e.notes.append(Note(BEGAN + 13.0, "database: stop", "database stop", "database", BEGAN + 14))
    assert "what_passes_a_soft_limit_is_reduced" not in violated(e)
    e = a_sound_round()
    kills = [row for row in e.decisions if row["summary"].startswith("kill ")]
    a_reading_calls_for_a_cut(e, 12.0)
    e.decisions += kills
    assert "what_passes_a_soft_limit_is_reduced" not in violated(e)


@breaks("no_expired_proposal_is_decided")
def a_proposal_is_decided_after_its_time(e: Evidence) -> None:
    proposal = {"agent_id": "momentum", "expires_at": "1970-01-12T13:46:40+00:00"}
    event_of(e, "scheduled", "decide", 1).payload["proposals"] = [proposal]


def test_a_proposal_is_decided_in_time_where_the_task_began_in_time() -> None:
    e = a_sound_round()
    a_proposal_is_decided_after_its_time(e)
    decide = event_of(e, "scheduled", "decide", 1)
    began = Event(decide.run, decide.number, BEGAN - 5.0, "task_started")
    e.events.insert(e.events.index(decide), began)
    assert "no_expired_proposal_is_decided" not in violated(e)


def test_a_kill_under_the_id_of_another_command_has_the_last_word() -> None:
    e = a_sound_round()
    call_of(e, "p1").answer, e.outcomes["p1"] = r.REFUSED, "applied"
    assert "every_command_can_be_looked_up" in violated(e)
    kill = copy.copy(event_of(e, "signal", "kill"))
    kill.payload = {"command_id": "p1", "reason": "why-p1"}
    e.events.append(kill)
    assert "every_command_can_be_looked_up" not in violated(e)


def test_an_api_that_cannot_read_the_database_knows_a_revoked_key_for_longer() -> None:
    e = a_sound_round()
    a_revoked_key_opens(e)
    e.notes.append(Note(BEGAN, "database: stop", "database stop", "database", BEGAN + 1))
    assert "a_revoked_key_opens_nothing" not in violated(e)


def test_a_kill_that_is_sent_twice_under_one_id_cancels_once() -> None:
    e = a_sound_round()
    event = copy.copy(event_of(e, "signal", "kill", 1))
    e.events.append(event)
    assert "every_kill_cancels_everything" not in violated(e)
    event.payload = {"command_id": "k3", "reason": "another"}
    assert "every_kill_cancels_everything" in violated(e)


def test_a_restart_that_was_accepted_may_be_refused_in_the_end() -> None:
    e = a_sound_round()
    e.decisions.append(
        row_of(e, "restart applied") | {"decision_id": "z", "summary": "restart refused by cli: a kill came"}
    )
    assert "every_command_is_carried_out_once" not in violated(e)


def test_where_as_many_cancels_wait_as_may_wait_there_is_no_other() -> None:
    e = a_sound_round()
    a_cancel_all_leaves_a_market_out(e)
    row = instruction_of(e, "k1:1:cancel_spot")
    early = row | {"prepared_at": row["prepared_at"] - timedelta(seconds=2)}
    e.instructions += [early | {"instruction_id": f"wait-{n}"} for n in range(10)]
    assert "every_cancel_all_cancels_what_it_names" not in violated(e)


def test_a_command_may_be_refused_for_an_id_whose_own_command_still_waits() -> None:
    e = a_sound_round()
    row = row_of(e, "why-p1")
    summary = "cancel_all refused by http: the command id was used for another command"
    early = {"decision_id": "a", "summary": summary, "timestamp": row["timestamp"] - timedelta(milliseconds=1)}
    e.decisions.append(row | early)
    assert "every_command_is_carried_out_once" not in violated(e)


def test_under_the_rules_of_before_a_restart_forgets_the_ids() -> None:
    e = a_sound_round()
    event_of(e, "began").payload = 4
    a_command_is_carried_out_again_after_a_restart(e)
    assert "every_command_is_carried_out_once" not in violated(e)


def a_kill_of_nobody(e: Evidence, at: float) -> None:
    """The row of one that has no id and no reason that its sender knows."""
    row = copy.copy(row_of(e, "why-k2"))
    moment = row["timestamp"] + timedelta(seconds=at - 7.0)
    row |= {"decision_id": f"decision_{at}", "timestamp": moment, "command_id": f"command_{at}"}
    row["summary"] = "kill repeated by temporal: manual kill switch"
    e.decisions.append(row)


def test_a_kill_without_any_input_has_a_row_that_nobody_else_has() -> None:
    e = a_sound_round()
    signal = copy.copy(event_of(e, "signal", "kill"))
    signal.at, signal.payload = BEGAN + 7.5, None
    e.events.append(signal)
    a_kill_of_nobody(e, 7.2)
    assert "every_kill_signal_kills" in violated(e)
    a_kill_of_nobody(e, 7.7)
    assert "every_kill_signal_kills" not in violated(e)


CASES = [pytest.param(rule, each, id=each.__name__) for rule, ways in BREAKS.items() for each in ways]


@pytest.mark.parametrize(("rule", "broken"), CASES)
def test_a_broken_record_is_seen(rule: str, broken: Breaks) -> None:
    e = a_sound_round()
    broken(e)
    assert rule in violated(e)


def test_the_cancel_of_a_single_order_names_it_as_the_order_itself_does() -> None:
    e = a_sound_round()
    instruction_of(e, "ord_1")["venue_order_id"] = instruction_of(e, "k1")["venue_order_id"] = "1000"
    instruction_of(e, "k1")["tool"] = "cancel_order"
    assert "the_venue_knows_no_order_twice" not in violated(e)


def test_an_order_of_a_real_venue_that_nobody_names_is_no_answer_to_a_report_that_never_came() -> None:
    e = a_sound_round()
    e.live = True
    for event in e.events:
        event.payload = {} if event.kind == "completed" and isinstance(event.payload, dict) else event.payload
    assert "every_report_is_what_the_venue_had" not in violated(e)


def test_a_fault_on_its_way_excuses_a_kill_that_was_not_answered() -> None:
    e = a_sound_round()
    call_of(e, "k2").answer = r.UNKNOWN
    e.notes.append(Note(BEGAN + 6.9, "temporal: stop", "temporal stop", "temporal", BEGAN + 8.0))
    assert "a_kill_over_http_is_answered_in_time" not in violated(e)
    e.notes[0].target = "database"
    assert "a_kill_over_http_is_answered_in_time" in violated(e)


def test_a_kill_that_waits_as_long_as_whoever_asks_temporal_itself_is_no_violation() -> None:
    e = a_sound_round()
    call_of(e, "k2").answer = r.UNKNOWN
    slow = copy.copy(call_of(e, "cancel-1"))
    slow.kind, slow.start, slow.end = "resume", BEGAN + 6.9, BEGAN + 7.8
    e.calls.append(slow)
    assert "a_kill_over_http_is_answered_in_time" not in violated(e)


def test_an_order_that_was_on_its_way_when_the_kill_came_is_no_violation() -> None:
    e = a_sound_round()
    order = an_order_at(e, 4.3)
    order.not_after = BEGAN + 4.45
    assert violated(e) == set()
