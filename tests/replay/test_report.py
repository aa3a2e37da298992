"""Which of many events the table of a replay shows."""

from datetime import timedelta
from decimal import Decimal

from domain.desk.states import State
from domain.trading.assessment import Measures
from domain.trading.decisions import DecisionType
from replay.cycle import Cycle
from replay.report import MOST_ALIKE, MOST_SHOWN, _left_out, _most_telling
from replay.tally import KILLED, MAX_EVENTS, WARNED, Event, Tally
from tests.api.world import make_decision, make_observation
from tests.replay.builders import START, made_bars


def event(number: int, kind: str, text: str) -> Event:
    return Event(START + timedelta(minutes=number), kind, text, Decimal(1), Decimal(1))


def test_a_warning_that_comes_again_and_again_hides_no_other() -> None:
    often = [
        event(n, WARNED, f"Largest position {n}.5 % has reached 50 % of its soft limit of 35 %") for n in range(99)
    ]
    rare = event(100, WARNED, "Loss of the day 1.5 % has reached 50 % of its soft limit of 3 %")
    kill = event(101, KILLED, "Drawdown 10 % has reached its hard limit of 10 %: killed")
    assert _most_telling([*often, rare, kill]) == [*often[:MOST_ALIKE], rare, kill]


def test_a_kill_after_a_thousand_warnings_is_listed_and_what_is_not_listed_is_counted() -> None:
    tally = Tally()
    (bar,), measures = made_bars(1), Measures(equity=Decimal(1), peak=Decimal(1), day_open=Decimal(1))
    for level in [*["warn_50"] * (MAX_EVENTS + 5), "hard"]:
        row = make_decision(1, decision_type=DecisionType.RISK_ACTION, source=level)
        state = State.KILLED if level == "hard" else State.RUNNING
        tally.add(Cycle(bar, make_observation, measures, state, [row], [], []))
    assert tally.kill in tally.events
    assert _left_out(tally, MOST_SHOWN) == "and 976 more; the JSON and the chart have 1,001 of these 1,006"
    assert _left_out(Tally(), 0) is None
