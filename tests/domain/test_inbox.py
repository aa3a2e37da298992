"""Limits and proposals that come as commands."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.deciding import Choice
from domain.desk.applying import apply
from domain.desk.carried import Carried, CommandRecord, Outcome, RefusalCode
from domain.desk.commands import Command
from domain.desk.inbox import MAX_PROPOSALS, expire, taken_up
from domain.desk.payloads import RawPayload, read_command
from domain.desk.states import CommandKind, State
from domain.risk.limits import Limits
from domain.trading.assessment import Level, RiskMemory
from domain.trading.decisions import Decision, DecisionType
from tests.domain.builders import BTC, ETH, NOW, a_command, a_desk, a_tick

D = Decimal
SET_LIMITS, PROPOSE = CommandKind.SET_LIMITS, CommandKind.PROPOSE


def read(kind: CommandKind, body: str, command_id: str = "c") -> Command:
    return read_command(kind, [RawPayload("json/plain", body.encode())], command_id)


def send(desk: Carried, kind: CommandKind, body: str, command_id: str = "c", after: float = 0) -> CommandRecord:
    apply(desk, read(kind, body, command_id), a_tick(timedelta(seconds=after)))
    return desk.commands[command_id]


def summaries(desk: Carried) -> list[str]:
    return [row.summary for row in desk.records if row.decision_type is DecisionType.CONTROL]


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        '{"limits": {"max_leverage": 1.5}, "reason": "volatile"}',
        '{"max_leverage": "1.5", "reason": "volatile"}',
    ],
)
def test_tightening_works_at_once_and_is_logged(body: str) -> None:
    desk = a_desk()
    record = send(desk, SET_LIMITS, body)
    assert desk.limits == Limits(max_leverage="1.5")
    assert (record.outcome, record.limits) == (Outcome.APPLIED, {"max_leverage": "1.5"})
    assert summaries(desk) == ["set_limits applied by temporal: max_leverage 2 -> 1.5 (volatile)"]


@pytest.mark.parametrize("state", [State.RUNNING, State.KILLED])
def test_loosening_takes_a_paused_desk(state: State) -> None:
    desk = a_desk(state=state)
    record = send(desk, SET_LIMITS, '{"hard_leverage": 4, "max_leverage": 1}')
    how = {State.RUNNING: "pause the desk first", State.KILLED: "restart the desk, then pause it"}[state]
    assert desk.limits == Limits(), "not even what it would tighten"
    assert (record.outcome, record.code) == (Outcome.REFUSED, RefusalCode.CONFLICT)
    assert record.detail == f"this loosens hard_leverage 3 -> 4; {how} (tightening needs no pause)"


def test_a_paused_desk_takes_looser_limits() -> None:
    desk = a_desk(state=State.PAUSED)
    assert send(desk, SET_LIMITS, '{"hard_leverage": 4}').outcome is Outcome.APPLIED
    assert desk.limits.hard_leverage == D(4)


def test_a_changed_number_is_warned_of_anew() -> None:
    """Whoever asks for room is warned before it is used up, as by the number before."""
    desk = a_desk(state=State.PAUSED)
    levels = {"drawdown": Level.WARN_90, "leverage": Level.WARN_50, "position": Level.SOFT}
    desk.risk = RiskMemory(levels=levels, warned=dict.fromkeys(levels, Level.WARN_90))
    send(desk, SET_LIMITS, '{"soft_drawdown": 0.10, "hard_drawdown": 0.12, "soft_position_fraction": 0.36}')
    assert desk.risk.levels == {"leverage": Level.WARN_50, "position": Level.SOFT}
    assert desk.risk.warned == {"leverage": Level.WARN_90}


def test_a_killed_desk_takes_tighter_limits() -> None:
    desk = a_desk(state=State.KILLED)
    assert send(desk, SET_LIMITS, '{"max_leverage": 1}').outcome is Outcome.APPLIED


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("{}", "set_limits needs at least one limit"),
        ('"just a reason"', "set_limits needs at least one limit"),
        ('{"limits": [1]}', "limits must be an object"),
        ('{"limits": {"max_levrage": 1}}', "there is no limit 'max_levrage'; did you mean 'max_leverage'?"),
        ('{"max_levrage": 1}', "unknown field 'max_levrage'"),
        ('{"limits": {"max_leverage": true}}', "max_leverage must be a number"),
        ('{"limits": {"max_leverage": 1e999999999}}', "max_leverage: Input should be less than or equal to 1000"),
        ('{"limits": {"max_leverage": 2.6}}', "max_leverage (2.6) is above soft_leverage (2.5); give both"),
        ('{"limits": {"max_leverage": ' + "9" * 50 + "}}", "max_leverage must be a number of at most 40 characters"),
    ],
)
def test_a_wrong_set_limits_changes_nothing_and_says_what_is_wrong(body: str, problem: str) -> None:
    desk = a_desk(state=State.PAUSED)
    record = send(desk, SET_LIMITS, body)
    assert desk.limits == Limits()
    assert (record.outcome, record.code) == (Outcome.REFUSED, RefusalCode.INVALID)
    assert record.detail
    assert record.detail.startswith(problem)


def test_the_same_limits_again_are_a_repetition() -> None:
    desk = a_desk()
    assert send(desk, SET_LIMITS, '{"max_leverage": 2}').repeated
    assert summaries(desk) == ["set_limits repeated by temporal: no change"]


# --- proposals ------------------------------------------------------------------------------------------------------

FULL = '{"agent_id": "mine", "symbol": "btc/usdt", "side": "buy", "confidence": 0.75, "expected_return": 0.002}'


def test_a_proposal_waits_for_the_next_cycle() -> None:
    desk = a_desk()
    record = send(desk, PROPOSE, FULL)
    assert record.outcome is Outcome.PENDING
    (waiting,) = desk.proposals
    assert (waiting.proposal.symbol, waiting.proposal.side, waiting.proposal.confidence) == (BTC, "BUY", 0.75)
    assert waiting.proposal.expires_at == NOW + timedelta(seconds=2 * desk.cycle_seconds)
    assert record.proposal_id == waiting.proposal.proposal_id
    assert summaries(desk) == []


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ('"ttl_seconds": 3', 3),
        ('"expires_at": "2026-03-12T14:30:07+00:00"', 7),
        ('"expires_at": "2026-03-12T14:30:07+00:00", "ttl_seconds": 60', 7),
        ('"sent_at": "2026-03-12T14:29:58+00:00", "ttl_seconds": 3', 1),
    ],
)
def test_a_proposal_expires_when_it_says(more: str, seconds: int) -> None:
    desk = a_desk()
    send(desk, PROPOSE, FULL.replace("{", "{" + more + ", "))
    expire(desk, a_tick(timedelta(seconds=seconds - 0.1)))
    assert len(desk.proposals) == 1
    expire(desk, a_tick(timedelta(seconds=seconds)))
    assert desk.proposals == []
    assert desk.commands["c"].outcome is Outcome.REFUSED
    assert summaries(desk) == ["propose refused by mine: it expired before a cycle took it up"]


def test_a_proposal_that_comes_too_late_is_refused() -> None:
    desk = a_desk()
    record = send(desk, PROPOSE, FULL.replace("{", '{"expires_at": "2026-03-12T14:30:00+00:00", '))
    assert (record.outcome, record.code) == (Outcome.REFUSED, RefusalCode.EXPIRED)
    assert record.detail == "it came too late: it expired at 2026-03-12T14:30:00+00:00"
    assert desk.proposals == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({'"btc/usdt"': '"DOGEUSDT"'}, "unknown symbol DOGEUSDT; allowed are BTCUSDT"),
        ({'"btc/usdt"': '"?"'}, "symbol: '?' is not a symbol"),
        ({'"symbol": "btc/usdt", ': ""}, "symbol: Field required"),
        ({'"buy"': '"HOLD"'}, "side: Input should be 'BUY' or 'SELL'"),
        ({"0.75": "1.5"}, "confidence: Input should be less than or equal to 1"),
        ({"0.75": "true"}, "confidence: must be a number, not true or false"),
        ({"0.75": "NaN"}, "an input of encoding"),
        ({'"mine"': '"not an id"'}, "agent_id: String should match pattern"),
        ({"{": '{"quantity": 5, '}, "unknown field 'quantity'"),
        ({"{": '{"ttl_seconds": 0, '}, "ttl_seconds: Input should be greater than 0"),
        ({"{": '{"expires_at": "2026-03-12T14:30:07", '}, "expires_at: Input should have timezone info"),
    ],
)
def test_a_malformed_one_is_refused_with_what_is_wrong(changes: dict[str, str], problem: str) -> None:
    desk, body = a_desk(), FULL
    for before, after in changes.items():
        body = body.replace(before, after)
    record = send(desk, PROPOSE, body)
    assert (record.outcome, record.code) == (Outcome.REFUSED, RefusalCode.INVALID)
    assert record.detail
    assert record.detail.startswith(problem)


@pytest.mark.parametrize(("state", "word"), [(State.PAUSED, "paused"), (State.KILLED, "killed")])
def test_only_a_running_desk_takes_proposals(state: State, word: str) -> None:
    record = send(a_desk(state=state), PROPOSE, FULL)
    assert record.outcome is Outcome.REFUSED
    assert record.detail
    assert word in record.detail


def test_a_newer_one_of_the_same_agent_takes_the_place_of_the_older() -> None:
    desk = a_desk(symbols=[BTC, ETH])
    send(desk, PROPOSE, FULL, "a")
    send(desk, PROPOSE, FULL.replace("btc/usdt", "ETHUSDT"), "b")
    send(desk, PROPOSE, FULL.replace("buy", "sell"), "c")
    assert [(w.command_id, w.proposal.symbol) for w in desk.proposals] == [("b", ETH), ("c", BTC)]
    assert (desk.commands["a"].outcome, desk.commands["a"].detail) == (Outcome.APPLIED, "replaced by c")


def test_the_inbox_is_bounded() -> None:
    desk = a_desk()
    for number in range(MAX_PROPOSALS):
        send(desk, PROPOSE, FULL.replace("mine", f"a{number}"), f"c{number}")
    assert send(desk, PROPOSE, FULL, "one more").code is RefusalCode.BUSY
    assert send(desk, PROPOSE, FULL.replace("mine", "a7"), "again").outcome is Outcome.PENDING
    assert len(desk.proposals) == MAX_PROPOSALS


@pytest.mark.parametrize("sent_at", ["9999-12-31T23:59:59+00:00", "2990-01-01T00:00:00+00:00"])
def test_a_clock_that_is_ahead_makes_no_proposal_live_longer(sent_at: str) -> None:
    desk = a_desk()
    record = send(desk, PROPOSE, FULL.replace("{", f'{{"sent_at": "{sent_at}", ', 1))
    assert record.expires_at
    assert record.expires_at <= NOW + timedelta(days=1)


def test_a_kill_refuses_what_waits() -> None:
    desk = a_desk()
    send(desk, PROPOSE, FULL)
    apply(desk, a_command(CommandKind.KILL), a_tick())
    assert desk.proposals == []
    assert desk.commands["c"].detail == "the desk was killed before a cycle took it up"


def test_the_outcome_of_a_proposal_is_what_a_cycle_made_of_it() -> None:
    desk = a_desk(symbols=[BTC, ETH])
    send(desk, PROPOSE, FULL, "a")
    send(desk, PROPOSE, FULL.replace("btc/usdt", "ETHUSDT"), "b")
    taken = list(desk.proposals)
    send(desk, PROPOSE, FULL.replace("mine", "later"), "d")
    chosen: dict[str, Any] = {"proposal": taken[0].proposal, "risk_reasons": ["position_too_large"]}
    choice = Choice(decision_type=DecisionType.ORDER_INTENT, summary="s", **chosen)
    row = Decision(decision_id="decision_1", timestamp=NOW, decision_type=choice.decision_type, summary="s")
    taken_up(desk, taken, choice, row, a_tick())
    assert [w.command_id for w in desk.proposals] == ["d"]
    assert desk.commands["a"].detail == "taken up by decision_1: position_too_large"
    assert desk.commands["b"].detail == "taken up by decision_1: not selected"
    assert {desk.commands[name].outcome for name in "ab"} == {Outcome.APPLIED}


def test_a_proposal_that_was_not_taken_is_refused_with_the_reason() -> None:
    desk = a_desk(symbols=[BTC, ETH])
    send(desk, PROPOSE, FULL, "a")
    (waiting,) = taken = list(desk.proposals)
    why = {waiting.proposal.proposal_id: "mine is an agent of this desk's own"}
    choice = Choice(decision_type=DecisionType.NO_ACTION, summary="s", not_taken=why)
    row = Decision(decision_id="decision_1", timestamp=NOW, decision_type=choice.decision_type, summary="s")
    taken_up(desk, taken, choice, row, a_tick())
    assert (desk.commands["a"].outcome, desk.commands["a"].detail) == (Outcome.REFUSED, *why.values())
    assert summaries(desk)[-1] == "propose refused by mine: mine is an agent of this desk's own"


def test_what_was_replaced_while_a_cycle_decided_keeps_that_outcome() -> None:
    """Its sender was told so."""
    desk = a_desk(symbols=[BTC, ETH])
    send(desk, PROPOSE, FULL, "a")
    (waiting,) = taken = list(desk.proposals)
    send(desk, PROPOSE, FULL, "b")
    why = {waiting.proposal.proposal_id: "mine is an agent of this desk's own"}
    choice = Choice(decision_type=DecisionType.NO_ACTION, summary="s", not_taken=why)
    row = Decision(decision_id="d", timestamp=NOW, decision_type=choice.decision_type, summary="s")
    taken_up(desk, taken, choice, row, a_tick())
    assert desk.commands["a"].outcome is Outcome.APPLIED
    assert [w.command_id for w in desk.proposals] == ["b"]
