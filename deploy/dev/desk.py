"""The one place where `ais dev` touches the coordinator."""

import os
from pathlib import Path

from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

import desk_commands
import settings
from lifecycle import Refused
from startup import NotUp
from workflows import names
from workflows.gateway import connect


async def start(data_dir: Path) -> str | None:
    """Starts the coordinator by the rules of `ais start`. None when it is open; otherwise why not, for a person."""
    os.environ["AIS_DATA_DIR"] = str(data_dir)
    try:
        await desk_commands.start(lambda text: None)
    except (Refused, NotUp) as error:
        return str(error)
    return None


async def is_open(data_dir: Path) -> bool:
    """Whether a coordinator of this desk is open, for `ready` after a person's `ais restart`."""
    desk = settings.DeskSettings.load(data_dir).desk
    try:
        client = await connect(settings.temporal_connect_config(data_dir))
        described = await client.get_workflow_handle(names.workflow_id(desk)).describe()
    except (RPCError, RuntimeError):
        return False
    return described.status == WorkflowExecutionStatus.RUNNING
