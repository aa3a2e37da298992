"""Workflows in a file of their own, as the sandbox wants it."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

# The gate opens once a worker has ended, which may take two minutes (tests/conftest.py).
GATED = timedelta(seconds=180)


@workflow.defn
class Timed:
    """What it does after its first activity depends on the time."""

    @workflow.run
    async def run(self, activities: str) -> None:
        """A second activity, where any time has passed; a timer otherwise."""
        began = workflow.now()
        once = RetryPolicy(maximum_attempts=1)
        for name in ("gated", "at_once"):
            await workflow.execute_activity(
                name, task_queue=activities, start_to_close_timeout=GATED, retry_policy=once
            )
            if workflow.now() == began:
                await workflow.sleep(0.01)

    @workflow.query
    def look(self) -> str:
        """Anything."""
        return "seen"


@workflow.defn
class Handing:
    """Continues as new when its activity ends, with all signals that it has heard."""

    def __init__(self) -> None:
        self._heard: list[int] = []

    @workflow.run
    async def run(self, activities: str, heard: list[int] | None = None) -> list[int]:
        """The signals of the first run, which ends with the activity."""
        if heard is None:
            await workflow.execute_activity("gated", task_queue=activities, start_to_close_timeout=GATED)
            workflow.continue_as_new(args=[activities, self._heard])
        return heard

    @workflow.signal
    def hear(self, number: int) -> None:
        """Anything."""
        self._heard.append(number)

    @workflow.query
    def look(self) -> str:
        """Anything."""
        return "seen"
