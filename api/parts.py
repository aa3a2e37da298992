"""The parts that routes use, built once in `api.app`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.commands import Commander
from api.coordinator import CoordinatorClient
from api.feed import EventFeed
from api.health import Health, SharedRound
from api.keys import KeyRing
from api.metrics import ApiMetrics
from api.reporting import Reports
from domain.desk.states import Mode


@dataclass(frozen=True)
class ApiParts:
    """The parts of one API process. `page_terms` are headers for the console: what its user needs once this process is gone."""

    desk_name: str
    mode: Mode
    desk: CoordinatorClient
    commander: Commander
    reports: Reports
    health: Health
    instruments: ApiMetrics
    scrape: SharedRound[bytes]
    feed: EventFeed
    ring: KeyRing
    page_terms: Mapping[str, str]


async def _parts(request: Request) -> ApiParts:
    # `async`, like every dependency here: a plain function would run in the thread pool, even for a kill.
    parts: ApiParts = request.app.state.parts
    return parts


PartsOf = Annotated[ApiParts, Depends(_parts)]
