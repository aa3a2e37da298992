"""Carries out `ais desks`: every desk that Temporal lists, and what its coordinator says.

Temporal's list lags behind, and shows what was written there last. So each open coordinator is asked too. If it does not answer,
its state is shown as merely listed.
"""

import asyncio
import json
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.client import Client
from temporalio.converter import decode_typed_search_attributes
from temporalio.service import RPCError

from cli.connecting import connect_lazily
from domain.values import iso, printable
from startup import Say
from workflows import names
from workflows.gateway import PAUSED, RUNNING, DeskGateway, GatewayError, TemporalUnreachable, unreachable_text
from workflows.listing import listed, status_of

ASK_SECONDS = 2.0
LIST_SECONDS = 10.0
ASKED_AT_ONCE = 8
# A namespace may keep thousands of closed runs of a desk that was started and stopped many times.
MAX_CLOSED = 2000
NOT_KNOWN = "not known"

_OPEN = f'WorkflowType="{names.WORKFLOW_TYPE}" AND ExecutionStatus="Running"'
_CLOSED = f'WorkflowType="{names.WORKFLOW_TYPE}" AND ExecutionStatus!="Running" AND ExecutionStatus!="ContinuedAsNew"'


class DeskLine(BaseModel):
    """One desk. `confirmed`: the coordinator itself has just said so. Unknown fields are None."""

    desk: str
    coordinator: str
    state: str | None = None
    confirmed: bool = False
    mode: str | None = None
    since: datetime | None = None
    symbols: list[str] | None = None
    closed_at: datetime | None = None
    error: str | None = None


async def desks(say: Say) -> list[DeskLine]:
    """Open desks, then the newest closed coordinator of every other one; says if some may be missing. Raises GatewayError."""
    client = await connect_lazily()
    # A lazy client's first connect has no limit of its own.
    await DeskGateway(client, "any", patience=ASK_SECONDS).open_status()
    opened = {_id(found): found for found in await _listed(client, _OPEN)}
    closed: dict[str, WorkflowExecutionInfo] = {}
    ended_runs = await _listed(client, _CLOSED, MAX_CLOSED)
    if len(ended_runs) == MAX_CLOSED:
        say(f"only {MAX_CLOSED:,} closed runs were looked at: a desk whose coordinator closed long ago may be missing")
    for found in ended_runs:
        if status_of(found) == PAUSED:
            opened.setdefault(_id(found), found)
            continue
        other = closed.setdefault(_id(found), found)
        closed[_id(found)] = max(other, found, key=lambda run: _closed_at(run) or run.start_time.ToDatetime(UTC))
    turns = asyncio.Semaphore(ASKED_AT_ONCE)
    asked = await asyncio.gather(*(_asked_line(client, _listed_line(found), turns) for found in opened.values()))
    ended = [_listed_line(found) for id_, found in closed.items() if id_ not in opened]
    return [*sorted(asked, key=lambda line: line.desk), *sorted(ended, key=lambda line: line.desk)]


def _id(found: WorkflowExecutionInfo) -> str:
    return str(found.execution.workflow_id)


def _closed_at(found: WorkflowExecutionInfo) -> datetime | None:
    return found.close_time.ToDatetime(UTC) if found.HasField("close_time") else None


async def _listed(client: Client, query: str, limit: int | None = None) -> list[WorkflowExecutionInfo]:
    found: list[WorkflowExecutionInfo] = []
    try:
        async with asyncio.timeout(LIST_SECONDS):
            async for run in listed(client, query, timedelta(seconds=LIST_SECONDS)):
                if len(found) == limit:
                    break
                found.append(run)
            return found
    except TimeoutError:
        raise TemporalUnreachable(f"Temporal did not list the coordinators within {LIST_SECONDS:g} s") from None
    except RuntimeError as error:
        raise TemporalUnreachable(unreachable_text(error)) from error
    except RPCError as error:
        raise GatewayError(f"Temporal does not list the coordinators: {error.message}") from error


def _listed_line(found: WorkflowExecutionInfo) -> DeskLine:
    """A coordinator, open or closed, as Temporal lists it."""
    status, attributes = status_of(found), decode_typed_search_attributes(found.search_attributes)
    return DeskLine(
        # From the workflow id, which commands address; the attribute may be missing.
        desk=_id(found).removeprefix(names.workflow_id("")),
        coordinator="open" if status in (RUNNING, PAUSED) else status.lower().replace("_", " "),
        state=attributes.get(names.STATE_ATTRIBUTE),
        mode=attributes.get(names.MODE_ATTRIBUTE),
        closed_at=_closed_at(found),
    )


async def _asked_line(client: Client, listed: DeskLine, turns: asyncio.Semaphore) -> DeskLine:
    """A desk as its coordinator reports it, or as listed if the coordinator does not answer."""
    async with turns:
        try:
            status = await DeskGateway(client, listed.desk, patience=ASK_SECONDS).status()
        except GatewayError as error:
            return listed.model_copy(update={"error": printable(str(error))})
    facts = status.model_dump(mode="json", include={"desk", "state", "mode", "since", "symbols"})
    return DeskLine(coordinator="open", confirmed=True, **facts)


def as_json(lines: list[DeskLine]) -> str:
    """A list of objects, for programs."""
    return json.dumps([line.model_dump(mode="json") for line in lines], indent=2)


def table(lines: list[DeskLine]) -> str:
    """One line for each desk, and below it why its coordinator did not answer."""
    rows = [f"{'desk':<16} {'coordinator':<12} {'mode':<9} {'state':<20} {'since':<26} symbols"]
    for line in lines:
        since = iso(line.since) if line.since else NOT_KNOWN
        symbols = ", ".join(line.symbols) if line.symbols else NOT_KNOWN
        cells = (
            f"{line.desk:<16} {line.coordinator:<12} {line.mode or NOT_KNOWN:<9} {_state_text(line):<20} {since:<26}"
        )
        rows.append(printable(f"{cells} {symbols}"))
        rows += [printable(f"  closed {iso(line.closed_at)}")] if line.closed_at else []
        rows += [f"  {line.error}"] if line.error else []
    return "\n".join(rows) if lines else "Temporal lists no coordinator. If the desk is new, run `ais start`"


def _state_text(line: DeskLine) -> str:
    """The state; marked as listed or past unless the coordinator itself confirmed it."""
    if line.state is None:
        return NOT_KNOWN
    if line.confirmed:
        return line.state.upper()
    return f"{'was' if line.closed_at else 'listed as'} {line.state}"
