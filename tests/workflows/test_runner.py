"""A run is never taken further by a query that came before the workflow task of what it brings."""

from typing import Any

import pytest
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import WorkflowInstance

from workflows import names, runner
from workflows.runner import TimelyInstance


class Run(WorkflowInstance):
    """Counts what it is given."""

    def __init__(self) -> None:
        self.activations: list[WorkflowActivation] = []

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        self.activations.append(act)
        done = WorkflowActivationCompletion()
        done.successful.SetInParent()
        return done

    def get_serialization_context(self, command_info: Any) -> Any:
        return command_info

    def get_external_store_context(self, command_info: Any) -> Any:
        return command_info

    def get_info(self) -> Any:
        return "info"


def activation(
    seconds: int, *, replayed: bool, job: str = "resolve_activity", run_id: str = "run", length: int = 43
) -> WorkflowActivation:
    made = WorkflowActivation(run_id=run_id, is_replaying=replayed, history_length=length)
    made.timestamp.seconds = seconds
    getattr(made.jobs.add(), job).SetInParent()
    return made


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_refusals", {})


def test_news_at_the_time_of_a_task_that_was_replayed_is_refused() -> None:
    run = Run()
    timely = TimelyInstance(run)
    timely.activate(activation(1, replayed=True, job="initialize_workflow"))
    timely.activate(activation(2, replayed=True))
    refused = timely.activate(activation(2, replayed=False))
    assert refused.failed.failure.message == names.LATCH_UNREAD
    assert len(run.activations) == 2


def test_news_at_the_time_of_a_task_that_this_worker_has_carried_out_is_refused() -> None:
    """Found: a worker that was stopped for a second lost its next task, and was sent a query first, with the run in its cache."""
    timely = TimelyInstance(Run())
    assert timely.activate(activation(2, replayed=False, length=43)).HasField("successful")
    assert timely.activate(activation(2, replayed=False, length=52)).HasField("failed")


def query(seconds: int, query_id: str = "legacy_query") -> WorkflowActivation:
    made = activation(seconds, replayed=False, job="query_workflow")
    made.jobs[0].query_workflow.query_id = query_id
    return made


@pytest.mark.parametrize(
    ("before", "asked", "answer"),
    [
        pytest.param([(2, True), (3, False)], query(3), "failed", id="the first news of a run that was read anew"),
        pytest.param(
            [(2, True), (3, False)], query(3, "of-a-task"), "successful", id="a query that has a task of its own"
        ),
        pytest.param([(2, True), (3, False), (4, False)], query(4), "successful", id="a run with a second task"),
        pytest.param([(2, True)], query(2), "successful", id="a run without news"),
        pytest.param([(3, False)], query(3), "successful", id="a run that has begun here"),
    ],
)
def test_a_query_is_refused_where_the_news_before_it_may_be_that_of_a_task_that_timed_out(
    before: list[tuple[int, bool]], asked: WorkflowActivation, answer: str
) -> None:
    """Found: another worker's task timed out; a query came before the next one, and the run could never be replayed again."""
    timely = TimelyInstance(Run())
    for seconds, replayed in before:
        timely.activate(activation(seconds, replayed=replayed))
    assert timely.activate(asked).WhichOneof("status") == answer


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
    timely = TimelyInstance(run)
    timely.activate(activation(2, replayed=True, job="initialize_workflow"))
    assert [timely.activate(each).WhichOneof("status") for each in following] == ["successful"] * len(following)
    assert len(run.activations) == 1 + len(following)


def test_a_run_that_was_read_for_a_query_refuses_none_after_its_tasks() -> None:
    timely = TimelyInstance(Run())
    following = [activation(2, replayed=True), query(2), activation(3, replayed=False), query(3)]
    assert [timely.activate(each).WhichOneof("status") for each in following] == ["successful"] * 4
    # What another worker has done since then is replayed; then the last task may again be one that timed out.
    timely.activate(activation(4, replayed=True, length=60))
    timely.activate(activation(5, replayed=False, length=70))
    assert timely.activate(query(5)).HasField("failed")


def test_a_query_between_hides_nothing() -> None:
    timely = TimelyInstance(Run())
    timely.activate(activation(2, replayed=True))
    assert timely.activate(activation(2, replayed=True, job="query_workflow")).HasField("successful")
    assert timely.activate(activation(2, replayed=False)).HasField("failed")


def test_a_run_is_refused_however_many_look_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(runner, "_clock", lambda: now)

    def attempt(run_id: str = "run") -> bool:
        timely = TimelyInstance(Run())
        timely.activate(activation(2, replayed=True, run_id=run_id))
        return timely.activate(activation(2, replayed=False, run_id=run_id)).HasField("failed")

    assert all(attempt() for _ in range(100))
    now = runner.REFUSED_SECONDS - 1
    assert attempt()
    now = runner.REFUSED_SECONDS + 1
    assert not attempt()
    assert attempt("another")
