"""One activity and one timer a cycle, by the SDK alone. It imports nothing else: its sandbox would load that too."""

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = "bare"


@activity.defn
async def nothing() -> None:
    """Does nothing."""


@workflow.defn
class Bare:
    """One activity and one timer a cycle."""

    @workflow.run
    async def run(self, cycle_seconds: float) -> None:
        # A run of the bench is over long before a history is full.
        while True:
            await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=10))
            await workflow.sleep(cycle_seconds)


async def work(address: str) -> None:
    """Until the process is ended."""
    client = await Client.connect(address)
    await Worker(client, task_queue=QUEUE, workflows=[Bare], activities=[nothing]).run()
