"""The one place where `ais dev` touches the coordinator."""

from dataclasses import dataclass
from pathlib import Path

from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

import desk_commands
import settings
from lifecycle import Refused
from startup import NotUp
from workflows import names
from workflows.gateway import connect


@dataclass(frozen=True)
class Refusal:
    """Why the coordinator was not started, for a person."""

    why: str
    passing: bool
    """A store did not answer: to try again is safe, since a start is never a restart. Otherwise a person decides."""


async def start() -> Refusal | None:
    """Starts the coordinator by the rules of `ais start`. None when it is open."""
    try:
        await desk_commands.start(lambda text: None)
    except NotUp as error:
        return Refusal(str(error), passing=True)
    except Refused as error:
        return Refusal(str(error), passing=error.__cause__ is not None)
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
