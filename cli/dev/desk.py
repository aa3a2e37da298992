"""The one place where `ais dev` touches the coordinator."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

import settings
from cli.refusals import Refused
from startup import NotUp, Say
from workflows.gateway import RUNNING, DeskGateway, GatewayError, connect


@dataclass(frozen=True)
class StartRefusal:
    """Why the coordinator was not started, for a person."""

    why: str
    passing: bool
    """True if a store did not answer. Trying again is then safe, since a start is never a restart. Otherwise a person decides."""


async def start(say: Say) -> StartRefusal | str:
    """Starts the coordinator by the rules of `ais start`. Returns what that command says once it is open."""
    # Imported late: the half second that it takes, the stores need to come up anyway.
    from cli import desk as desk_commands

    try:
        # The worker has only just come up, and may not answer for the desk yet: `compare` waits for it.
        return await desk_commands.start(say, compares=False)
    except NotUp as error:
        return StartRefusal(str(error), passing=True)
    except Refused as error:
        return StartRefusal(str(error), passing=error.passing)
    except ValidationError as error:
        # A limit, say. The other parts serve a desk that is open already.
        return StartRefusal(settings.explain(error), passing=False)


async def compare(say: Say) -> None:
    """Says where the settings differ from the desk's terms, as soon as the desk answers."""
    from cli import desk as desk_commands

    try:
        await desk_commands.compare(say)
    except (NotUp, ValidationError) as error:
        why = settings.explain(error) if isinstance(error, ValidationError) else error
        say(f"warning: it is not known whether the settings match the desk's terms: {why}")


async def is_open(data_dir: Path) -> bool:
    """Whether a coordinator of this desk is open; after a person's `ais restart`, `ais dev` then prints `ready`."""
    desk = settings.DeskSettings.load(data_dir).desk
    try:
        client = await connect(settings.temporal_connect_config(data_dir), lazy=True)
        return await DeskGateway(client, desk).open_status() == RUNNING
    except (GatewayError, RuntimeError):
        return False
