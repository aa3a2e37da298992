"""A workflow in a file of its own, as the sandbox wants it: what it does depends on the time."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy


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
                name, task_queue=activities, start_to_close_timeout=timedelta(seconds=30), retry_policy=once
            )
            if workflow.now() == began:
                await workflow.sleep(0.01)

    @workflow.query
    def look(self) -> str:
        """Anything."""
        return "seen"
