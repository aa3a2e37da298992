"""Which of many events the table of a replay shows."""

from datetime import timedelta
from decimal import Decimal

from replay.report import MOST_ALIKE, _most_telling
from replay.tally import KILLED, WARNED, Event
from tests.replay.builders import START


def event(number: int, kind: str, text: str) -> Event:
    return Event(START + timedelta(minutes=number), kind, text, Decimal(1), Decimal(1))


def test_a_warning_that_comes_again_and_again_hides_no_other() -> None:
    often = [
        event(n, WARNED, f"Largest position {n}.5 % has reached 50 % of its soft limit of 35 %") for n in range(99)
    ]
    rare = event(100, WARNED, "Loss of the day 1.5 % has reached 50 % of its soft limit of 3 %")
    kill = event(101, KILLED, "Drawdown 10 % has reached its hard limit of 10 %: killed")
    assert _most_telling([*often, rare, kill]) == [*often[:MOST_ALIKE], rare, kill]
