"""Refuses every activity that the desk's own coordinator has not called.

The hazard behind this file: anybody with the `temporal` command line can start an activity by itself (`temporal activity
start`), or a second coordinator of the desk under another workflow id (`temporal workflow start`, *Start Workflow* in the web
UI). Measured: orders went out that no decision and no guard had seen, a kill's latch in the database was cleared for a moment,
and a single call with another account made the only worker exit, so that a kill waited for ten seconds. A second coordinator
traded beside the first one.
"""

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

NOT_THE_COORDINATOR = "NotTheCoordinator"


class OnlyTheCoordinator(Interceptor):
    """Temporal's hook around each activity. It must be the first of a worker's: what others do is done for the coordinator."""

    def __init__(self, workflow_id: str) -> None:
        self._workflow_id = workflow_id

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Called by Temporal."""
        return _FromTheCoordinator(next, self._workflow_id)


class _FromTheCoordinator(ActivityInboundInterceptor):
    def __init__(self, next_: ActivityInboundInterceptor, workflow_id: str) -> None:
        super().__init__(next_)
        self._workflow_id = workflow_id

    async def execute_activity(self, input: ExecuteActivityInput) -> object:
        caller = activity.info().workflow_id
        if caller != self._workflow_id:
            who = f"the workflow {caller!r}" if caller else "somebody, outside of any workflow"
            text = f"{who} has called this activity; this worker carries out what {self._workflow_id!r} asks for, nothing else"
            raise ApplicationError(text, type=NOT_THE_COORDINATOR, non_retryable=True)
        return await super().execute_activity(input)
