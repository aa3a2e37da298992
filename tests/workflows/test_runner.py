"""A run is never taken further by a query that came before the workflow task of what it brings."""

from collections.abc import Callable
from typing import Any

import pytest
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import WorkflowInstance

from workflows import names, runner
from workflows.runner import READ_AGAIN, TimelyInstance


class Run(WorkflowInstance):
    """Counts what it is given, and issues the commands that stand at its turn."""

    def __init__(self, *commands: str) -> None:
        self.activations: list[WorkflowActivation] = []
        self.commands = commands

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        self.activations.append(act)
        done = WorkflowActivationCompletion()
        done.successful.SetInParent()
        for command in self.commands[len(self.activations) - 1 : len(self.activations)]:
            if command:
                getattr(done.successful.commands.add(), command).SetInParent()
        return done

    def get_serialization_context(self, command_info: Any) -> Any:
        return command_info

    def get_external_store_context(self, command_info: Any) -> Any:
        return command_info

    def get_info(self) -> Any:
        return "info"


def nobody_says(_event_id: int) -> None:
    """Temporal does not answer."""


def activation(
    seconds: int, *, replayed: bool, job: str = "resolve_activity", run_id: str = "run", length: int = 43
) -> WorkflowActivation:
    made = WorkflowActivation(run_id=run_id, is_replaying=replayed, history_length=length)
    made.timestamp.seconds = seconds
    for name in job.split():
        getattr(made.jobs.add(), name).SetInParent()
    return made


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_refusals", {})


def commands(done: WorkflowActivationCompletion) -> list[Any]:
    """What it issues; a failure fails the test."""
    assert done.HasField("successful")
    return [*done.successful.commands]


def is_behind(done: WorkflowActivationCompletion) -> bool:
    """Whether the news was handed to nobody, and its task comes again."""
    return [command.schedule_activity.activity_id for command in commands(done)] == [READ_AGAIN]


def test_news_at_the_time_of_a_task_that_was_replayed_is_handed_to_nobody() -> None:
    run = Run()
    timely = TimelyInstance(run, nobody_says)
    timely.activate(activation(1, replayed=True, job="initialize_workflow"))
    timely.activate(activation(2, replayed=True))
    assert is_behind(timely.activate(activation(2, replayed=False)))
    (answer,) = commands(timely.activate(query(2)))
    assert answer.respond_to_query.failed.message == names.LATCH_UNREAD
    # The task of that news, with more: it fails because of what was issued before.
    assert not commands(timely.activate(activation(3, replayed=False, length=45)))
    assert len(run.activations) == 2


def test_news_at_the_time_of_a_task_that_this_worker_has_carried_out_is_handed_to_nobody() -> None:
    """Found: a worker that was stopped for a second lost its next task, and was sent a query first, with the run in its cache."""
    timely = TimelyInstance(Run(), nobody_says)
    assert not is_behind(timely.activate(activation(2, replayed=False, length=43)))
    assert is_behind(timely.activate(activation(2, replayed=False, length=52)))


def query(seconds: int, query_id: str = "legacy_query", length: int = 15) -> WorkflowActivation:
    # The SDK says of all queries that they are replayed.
    made = activation(seconds, replayed=True, job="query_workflow", length=length)
    made.jobs[0].query_workflow.query_id = query_id
    return made


# As the SDK gave them for one history: it begins (3 events), a signal comes and a timer is started (7 events, and 9 with what the
# task leaves behind). Then the timer fires.
FIRST = activation(1, replayed=False, job="initialize_workflow", length=3)
REPLAYED = [activation(1, replayed=True, job="initialize_workflow", length=3)]
CARRIED_OUT = [FIRST, activation(2, replayed=False, job="signal_workflow", length=7)]
READ = [*REPLAYED, activation(2, replayed=True, job="signal_workflow", length=7)]
ASKED = [*REPLAYED, activation(2, replayed=True, job="signal_workflow", length=9), query(2, length=9)]
# The task was scheduled and started, and failed; a signal came, and another task is scheduled.
EARLY = activation(3, replayed=False, job="signal_workflow fire_timer", length=15)
AFTER_A_FAILED_ONE = activation(4, replayed=False, job="signal_workflow signal_workflow fire_timer", length=17)
NEXT = activation(3, replayed=False, job="fire_timer", length=12)


@pytest.mark.parametrize(
    ("before", "asked", "answer"),
    [
        pytest.param([*READ, EARLY], query(3), "failed", id="early news of a run that was read anew"),
        pytest.param([*ASKED, EARLY], query(3), "failed", id="early news of a run that was asked before"),
        pytest.param([*CARRIED_OUT, EARLY], query(3), "failed", id="early news of a run in the cache"),
        pytest.param([*READ, AFTER_A_FAILED_ONE], query(4), "failed", id="news after a task that failed is doubted"),
        pytest.param([*READ, EARLY], query(3, "of-a-task"), "successful", id="a query that has a task of its own"),
        pytest.param([*READ, NEXT], query(3), "successful", id="a task of a run that was read for it"),
        pytest.param([*ASKED, NEXT], query(3), "successful", id="a task of a run that was asked before"),
        pytest.param([*CARRIED_OUT, NEXT], query(3), "successful", id="a task of a run in the cache"),
        pytest.param(ASKED, query(2, length=9), "successful", id="a run without news"),
        pytest.param([FIRST], query(1), "successful", id="a run that has begun here"),
    ],
)
def test_a_query_is_refused_where_the_news_before_it_may_be_that_of_a_task_that_failed(
    before: list[WorkflowActivation], asked: WorkflowActivation, answer: str
) -> None:
    """Found: another worker's task timed out; a query came before the next one, and the run could never be replayed again."""
    timely = TimelyInstance(Run("", "start_timer"), nobody_says)
    for each in before:
        assert timely.activate(each).HasField("successful")
    assert timely.activate(asked).WhichOneof("status") == answer


def test_a_run_whose_task_another_worker_has_leaves_the_cache() -> None:
    """Found: the SDK answers nothing more of a run that was behind when another worker had done the task."""
    dropped: list[Callable[[], bool]] = []
    timely = TimelyInstance(Run(), nobody_says, lambda _run_id, has_left: dropped.append(has_left))
    timely.activate(activation(2, replayed=True))
    assert is_behind(timely.activate(activation(2, replayed=False)))
    (has_left,) = dropped
    assert not has_left()
    timely.activate(activation(0, replayed=False, job="remove_from_cache"))
    assert has_left()


def test_after_a_step_of_the_servers_clock_a_task_is_taken() -> None:
    """The SDK's time never goes back: each task had the time of the one before, and no kill was carried out until then."""
    run = Run()
    timely = TimelyInstance(run, lambda _event_id: True)
    timely.activate(activation(2, replayed=False, length=43))
    assert not is_behind(timely.activate(activation(2, replayed=False, length=52)))
    assert len(run.activations) == 2


def test_an_update_comes_with_a_task() -> None:
    """The server writes no event about such a task if the update is refused: another event may have its number by now."""
    timely = TimelyInstance(Run(), lambda _event_id: False)
    timely.activate(FIRST)
    assert not is_behind(timely.activate(activation(2, replayed=False, job="do_update signal_workflow", length=9)))
    assert timely.activate(query(2, length=9)).HasField("successful")


def test_a_query_after_news_asks_once_whether_the_task_was_this_workers() -> None:
    """Found: another worker died in its task, whose news was read here for a query. The number of events looked like a task."""
    asked = []

    def says(event_id: int) -> bool:
        asked.append(event_id)
        return event_id != NEXT.history_length

    timely = TimelyInstance(Run("", "start_timer"), says)
    for each in CARRIED_OUT:
        timely.activate(each)
    for _ in range(2):
        assert timely.activate(query(2, length=7)).HasField("successful")
    timely.activate(NEXT)
    assert timely.activate(query(3)).HasField("failed")
    assert asked == [7, 12]


@pytest.mark.parametrize("begun", [True, False])
def test_the_server_says_whether_a_task_stands_behind_doubtful_news(begun: bool) -> None:
    """After a crash the lost task is in the history, so each start of a worker has such news: it need not be read twice."""
    asked = []

    def says(event_id: int) -> bool:
        asked.append(event_id)
        return begun

    run = Run("", "start_timer")
    timely = TimelyInstance(run, says)
    for each in READ:
        timely.activate(each)
    done = timely.activate(AFTER_A_FAILED_ONE)
    assert asked == [17]
    assert is_behind(done) is not begun
    assert timely.activate(query(4)).HasField("successful")
    assert len(run.activations) == (4 if begun else 2)


def ended(act: WorkflowActivation) -> tuple[Run, TimelyInstance]:
    run = Run("continue_as_new_workflow_execution")
    timely = TimelyInstance(run, nobody_says)
    assert timely.activate(act).HasField("successful")
    return run, timely


def test_news_for_a_run_that_has_ended_is_never_lost() -> None:
    """Found: a run was taken to its end for a query. The kill that came with the next task was handed to nobody."""
    run, timely = ended(FIRST)
    assert timely.activate(activation(2, replayed=False, job="signal_workflow", length=9)).HasField("failed")
    assert len(run.activations) == 1


def test_a_run_that_has_ended_tells_nothing() -> None:
    """Found: the server refused a task that ended the run, and told its answers all the same. Nothing of them had happened."""
    _, timely = ended(FIRST)
    for query_id in ("of-the-task", "legacy_query"):
        (answer,) = commands(timely.activate(query(1, query_id)))
        assert answer.respond_to_query.query_id == query_id
        assert answer.respond_to_query.failed.message == names.LATCH_UNREAD


def test_a_run_that_ended_long_ago_can_be_asked() -> None:
    _, timely = ended(REPLAYED[0])
    assert timely.activate(query(1)).HasField("successful")


def test_a_run_that_has_ended_leaves_the_cache() -> None:
    run, timely = ended(FIRST)
    assert timely.activate(activation(0, replayed=False, job="remove_from_cache", length=3)).HasField("successful")
    assert len(run.activations) == 2


@pytest.mark.parametrize(
    "following",
    [
        pytest.param([activation(3, replayed=False)], id="a task of its own time"),
        pytest.param([activation(2, replayed=True)], id="one more replayed activation of the same task"),
        pytest.param(
            [activation(3, replayed=False), activation(3, replayed=False)], id="two activations of one new task"
        ),
        pytest.param([activation(2, replayed=True, job="query_workflow"), activation(3, replayed=False)], id="a query"),
    ],
)
def test_whatever_has_its_own_time_goes_on(following: list[WorkflowActivation]) -> None:
    run = Run()
    timely = TimelyInstance(run, nobody_says)
    timely.activate(activation(2, replayed=True, job="initialize_workflow"))
    assert [timely.activate(each).WhichOneof("status") for each in following] == ["successful"] * len(following)
    assert len(run.activations) == 1 + len(following)


def test_a_query_between_hides_nothing() -> None:
    timely = TimelyInstance(Run(), nobody_says)
    timely.activate(activation(2, replayed=True))
    assert timely.activate(activation(2, replayed=True, job="query_workflow")).HasField("successful")
    assert is_behind(timely.activate(activation(2, replayed=False)))


def test_a_run_is_read_again_however_many_look_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(runner, "_clock", lambda: now)

    def attempt(run_id: str = "run") -> bool:
        timely = TimelyInstance(Run(), nobody_says)
        timely.activate(activation(2, replayed=True, run_id=run_id))
        return is_behind(timely.activate(activation(2, replayed=False, run_id=run_id)))

    assert all(attempt() for _ in range(100))
    now = runner.REFUSED_SECONDS - 1
    assert attempt()
    now = runner.REFUSED_SECONDS + 1
    assert not attempt()
    assert attempt("another")
