"""The one place where `ais dev` touches the coordinator.

LEAD: wire `start` to `workflows.lifecycle.start_desk`. It returns None when a coordinator is open (started now or
before), and otherwise the reason of the refusal, to be shown to a person.
"""

from pathlib import Path

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

import settings


async def start(data_dir: Path) -> str | None:
    return None


async def is_open(data_dir: Path) -> bool:
    """Whether a coordinator of this desk is open, for `ready` after a person's `ais restart`."""
    desk = settings.DeskSettings.load(data_dir).desk
    try:
        client = await Client.connect(**settings.temporal_connect_config(data_dir))
        described = await client.get_workflow_handle(f"coordinator-{desk}").describe()
    except (RPCError, RuntimeError):
        return False
    return described.status == WorkflowExecutionStatus.RUNNING
