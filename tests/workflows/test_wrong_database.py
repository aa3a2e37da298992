"""What a worker with another database than the desk's costs the coordinator."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from temporalio.exceptions import ApplicationError

from activities.calls import RecordCall, Scope, WriteDeskCall
from activities.metrics import WorkerMetrics
from activities.record import WRONG_DATABASE_SECONDS, RecordActivities
from domain.desk.outbox import RecordBatch, desk_row
from domain.desk.states import Mode
from storage.database import Database, DatabaseUnavailable, WrongDatabase
from tests.domain.builders import a_desk

SCOPE = Scope(desk="main", mode=Mode.PAPER)


class Refusing:
    """A database that refuses every transaction."""

    def __init__(self, error: DatabaseUnavailable) -> None:
        self.error = error

    async def run(self, _: Callable[[Any], Any]) -> None:
        raise self.error


async def failed(error: DatabaseUnavailable, call: RecordCall | WriteDeskCall) -> tuple[ApplicationError, float]:
    """What the activity raised, and after how many seconds."""
    recording = RecordActivities(SCOPE, cast("Database", Refusing(error)), WorkerMetrics("main"))
    began = asyncio.get_running_loop().time()
    with pytest.raises(ApplicationError) as raised:
        await (recording.record(call) if isinstance(call, RecordCall) else recording.write_desk(call))
    return raised.value, asyncio.get_running_loop().time() - began


@pytest.mark.parametrize(
    "call", [RecordCall(scope=SCOPE, batch=RecordBatch()), WriteDeskCall(scope=SCOPE, row=desk_row(a_desk()))]
)
async def test_a_refusal_that_comes_at_once_fills_no_history(call: RecordCall | WriteDeskCall) -> None:
    """A run that winds down beside slow cancels writes again at once: 5,000 events in 20 s, and no other worker could
    replay the run any more."""
    error, seconds = await failed(WrongDatabase("it is another one"), call)
    assert error.non_retryable
    assert seconds >= WRONG_DATABASE_SECONDS - 0.1


async def test_a_database_that_is_away_is_left_to_temporals_own_pauses() -> None:
    error, _ = await failed(DatabaseUnavailable("it is away"), RecordCall(scope=SCOPE, batch=RecordBatch()))
    assert not error.non_retryable
