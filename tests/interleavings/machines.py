"""Hypothesis looks for a program after which something does not hold, and makes the one that it finds as short as it can."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.interleavings.programs import a_cycle_answer, a_signal
from tests.interleavings.rehearsal import Rehearsal

PICKS = st.data()


class CommandMachine(RuleBasedStateMachine):
    """Commands in any order, and the outbox that carries them out: without cycles."""

    desk: Rehearsal

    @initialize(flattens=st.booleans(), shadow=st.sampled_from([False, False, False, True]))
    def start(self, flattens: bool, shadow: bool) -> None:
        """A desk that has never run."""
        self.desk = Rehearsal(kill_flattens=flattens, mode="shadow" if shadow else "paper")

    @rule(data=PICKS)
    def signals(self, data: st.DataObject) -> None:
        """One or two in one workflow task."""
        count = data.draw(st.integers(1, 2))
        self.desk.step(["turn", [a_signal(self.desk, _pick(data)) for _ in range(count)]])

    @precondition(lambda self: not self.desk.run.cancelled)
    @rule()
    def cancellation(self) -> None:
        """The Cancel button."""
        self.desk.step(["cancel", "stop"])

    @rule(seconds=st.sampled_from([1, 6, 90]))
    def time_passes(self, seconds: int) -> None:
        """Orders and proposals grow too old."""
        self.desk.step(["wait", seconds])

    @precondition(lambda self: self.desk.run.lanes.due())
    @rule(data=PICKS)
    def a_lane_begins(self, data: st.DataObject) -> None:
        """A cancel, a write, a question to the venue."""
        self.desk.step(["begin", _pick(data)(self.desk.run.lanes.due())])

    @precondition(lambda self: self.desk.run.lanes.under_way)
    @rule(data=PICKS)
    def a_lane_is_answered(self, data: st.DataObject) -> None:
        """In whatever way."""
        lane = _pick(data)(list(self.desk.run.lanes.under_way))
        self.desk.step(["end", lane, _pick(data)(self.desk.lane_answers(lane))])

    @precondition(lambda self: self.desk.written)
    @rule(number=st.integers(0, 4))
    def a_write_comes_late(self, number: int) -> None:
        """Of the desk's row, from a worker that was suspended."""
        self.desk.step(["late", number])

    @rule()
    def crash(self) -> None:
        """Another worker replays the history."""
        self.desk.step(["crash"])

    @rule()
    def continue_as_new(self) -> None:
        """The state is carried over, if nothing is under way."""
        self.desk.step(["continue"])

    def teardown(self) -> None:
        """Whatever happened, the desk comes to rest."""
        if hasattr(self, "desk"):
            self.desk.settle()


class CycleMachine(CommandMachine):
    """The same with the whole cycle, which any of it may come between."""

    @precondition(lambda self: self.desk.run.reads_latch)
    @rule(word=st.sampled_from(["read", "away"]))
    def read_latch(self, word: str) -> None:
        """Before the first cycle of a run."""
        self.desk.step(["read latch", word])

    @precondition(lambda self: self.desk.cycle_words())
    @rule(data=PICKS)
    def the_cycle_goes_on(self, data: st.DataObject) -> None:
        """By one answer, as far as the next question."""
        self.desk.step(["cycle", a_cycle_answer(self.desk, _pick(data))])

    @precondition(lambda self: self.desk.cycle_words())
    @rule(data=PICKS)
    def the_cycle_goes_on_far(self, data: st.DataObject) -> None:
        """By several answers: an order is three of them away."""
        for _ in range(4):
            if self.desk.cycle_words():
                self.desk.step(["cycle", a_cycle_answer(self.desk, _pick(data))])


def checked(examples: int, steps: int) -> settings:
    """The same programs each time, so that a failure comes back."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def _pick(data: st.DataObject) -> Any:
    return lambda choices: data.draw(st.sampled_from(list(choices)))
