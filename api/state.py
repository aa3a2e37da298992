"""What the routes are given, built once in `api.app`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.commands import Commander
from api.desk import Desk
from api.health import Health
from api.metrics import Instruments
from api.reporting import Reports
from domain.states import Mode


@dataclass(frozen=True)
class Parts:
    """The parts of one API process."""

    desk_name: str
    mode: Mode
    desk: Desk
    commander: Commander
    reports: Reports
    health: Health
    instruments: Instruments


async def _parts(request: Request) -> Parts:
    # `async`, like every dependency here: a plain function would run in the thread pool, the kill's too.
    parts: Parts = request.app.state.parts
    return parts


PartsOf = Annotated[Parts, Depends(_parts)]
