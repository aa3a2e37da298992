"""What is left after a round: the workflow's history, the database with every change of its rows, and the venue's own record."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import httpx
import psycopg
from psycopg.rows import dict_row
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from cli.audit_chain import Asked, verified
from tests.chaos.desk import Desk
from tests.chaos.recorder import Call, Note
from tests.chaos.schedule import BY_HAND
from tests.postgres import plain_url
from tests.temporal import has_begun
from workflows.converter import DATA_CONVERTER
from workflows.coordinator import Coordinator


@dataclass
class Event:
    """One event of a history, with what the checker needs of it. `at` is in seconds, `run` counts from 0."""

    run: int
    number: int
    at: float
    kind: str
    name: str = ""
    payload: Any = None
    scheduled: int = 0
    attempt: int = 0
    most_attempts: int = 0


@dataclass
class Change:
    """One change of a row: as it was afterwards, when it was made, and when its transaction was committed."""

    number: int
    at: float
    committed: float
    place: str
    op: str
    row: dict[str, Any]


# Rows of a page: a round has a few hundred.
PAGE = 20
RESTS = ("open", "new", "partially_filled")


@dataclass
class Version:
    """An order as the venue had it from one moment on: when that was written, and when it was committed."""

    written: float
    committed: float
    status: str
    filled: float


@dataclass
class VenueOrder:
    """An order in the venue's own record. `order_id` is ours, where the venue knows it."""

    order_id: str
    symbol: str
    status: str
    reduce_only: bool
    at: float
    not_after: float | None = None
    # When its transaction was committed, on paper.
    committed: float | None = None
    filled: float = 0.0
    market: str = "futures"
    side: str = "BUY"
    quantity: float = 0.0
    price: float | None = None
    # All that it ever was, in the order of time. Of a real venue only the last is known, as if it had been so from the beginning.
    versions: list[Version] = field(default_factory=list)

    @property
    def sign(self) -> int:
        """Of what its fills do to a position."""
        return 1 if self.side == "BUY" else -1

    def committed_by(self, moment: float) -> Version | None:
        """What everybody could see of it then; None before there was anything."""
        return next((v for v in reversed(self.versions) if v.committed <= moment), None)

    def written_by(self, moment: float) -> Version | None:
        """What it was for whoever held the account's lock then; nobody else writes meanwhile."""
        return next((v for v in reversed(self.versions) if v.written <= moment), None)


@dataclass
class Evidence:
    """One round, as the checker sees it."""

    seed: int
    live: bool
    cycle_seconds: float
    symbols: tuple[str, ...]
    calls: list[Call]
    notes: list[Note] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    instructions: list[dict[str, Any]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    orders: list[VenueOrder] = field(default_factory=list)
    desk_row: dict[str, Any] = field(default_factory=dict)
    kills: list[dict[str, Any]] = field(default_factory=list)
    status: dict[str, Any] | None = None
    # When a key was revoked, before the round.
    revoked_at: float = 0.0
    # When everything worked again, and when nothing was left to do; None if that never came.
    healed_at: float = 0.0
    settled_at: float | None = None
    # What became of acknowledged commands, by their ids, as an API tells it in the end.
    outcomes: dict[str, str] = field(default_factory=dict)
    # What `ais audit verify` finds wrong.
    audit: list[str] = field(default_factory=list)
    # The runs that no worker could carry on, and why.
    unreplayable: dict[str, str] = field(default_factory=dict)
    # Their histories, as `temporal workflow show --output json` gives them.
    histories: dict[str, str] = field(default_factory=dict)
    # The ids of the log's rows as an API's pages have them in the end; None where no API gave them all.
    reported: list[str] | None = None
    # Why not, in the words of the status.
    left: str = ""


async def collect(desk: Desk, found: Evidence) -> None:
    """Adds what the stores say to what the harness knows."""
    assert desk.client
    runs = await histories(desk.client, desk.workflow_id)
    found.events = [event for number, run in enumerate(runs) for event in events_of(number, run)]
    found.unreplayable = {run.run_id: text for run in runs if (text := await unreplayable(run))}
    found.histories = {run.run_id: run.to_json() for run in runs if run.run_id in found.unreplayable}
    found.outcomes = await outcomes(desk, found.calls)
    found.reported = await reported(desk)
    url = desk.postgres.url_of(desk.database)
    database(plain_url(url), found)
    found.audit = [line.text for line in verified(url, Asked(), lambda _: None) if not line.agrees]
    if found.live:
        found.orders = [_live_order(row) for row in (await desk.venue("state"))["orders"]]


async def outcomes(desk: Desk, calls: list[Call]) -> dict[str, str]:
    """Of all commands that were acknowledged to somebody who knows the id; of none where no API answers any more."""
    ids = sorted({call.command_id for call in calls if call.acknowledged and call.command_id})
    found = {}
    for command_id in ids:
        answer = await desk.ask(f"/control/commands/{command_id}")
        if answer is not None:
            found[command_id] = str(answer.json().get("outcome")) if answer.status_code == 200 else "not known"
    return found


async def reported(desk: Desk) -> list[str] | None:
    """The log as a person reads it, page by page, from the newest row to the oldest."""
    path, found = f"/reports/decisions?limit={PAGE}", list[str]()
    while path:
        answer = await desk.ask(path)
        if answer is None or answer.status_code != 200:
            return None
        found += [row["decision_id"] for row in answer.json()]
        following = answer.links.get("next")
        path = httpx.URL(following["url"]).raw_path.decode() if following else ""
    return found


# --- the history -------------------------------------------------------------------------------------------------------


async def histories(client: Client, workflow_id: str) -> list[WorkflowHistory]:
    """All runs, from the first on."""
    described = await client.get_workflow_handle(workflow_id).describe()
    run_id: str | None = described.raw_description.workflow_execution_info.first_run_id
    runs: list[WorkflowHistory] = []
    while run_id:
        runs.append(await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history())
        ending = runs[-1].events[-1].workflow_execution_continued_as_new_event_attributes
        run_id = ending.new_execution_run_id
    return runs


def events_of(number: int, run: WorkflowHistory) -> list[Event]:
    """The events of one run that matter."""
    return [found for event in run.events if (found := read_event(number, event))]


async def unreplayable(run: WorkflowHistory) -> str | None:
    """Why the next worker could not carry the run on; None if it could."""
    if not has_begun(run):
        return None
    replayer = Replayer(
        workflows=[Coordinator],
        # The sandbox is half of the cost, and changes no command.
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=DATA_CONVERTER,
        # Without the limit of 2 s for a task, which a busy machine exceeds.
        debug_mode=True,
    )
    failed = (await replayer.replay_workflow(run, raise_on_replay_failure=False)).replay_failure
    return None if failed is None else str(failed)


def read_event(run: int, event: HistoryEvent) -> Event | None:  # noqa: C901 - a table of kinds
    """The events that matter; None for the others."""
    kind = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
    at = event.event_time.seconds + event.event_time.nanos / 1e9
    name = kind.lower() + "_event_attributes"
    told: Any = getattr(event, name, None)
    found = Event(run, event.event_id, at, "")
    match kind:
        case "WORKFLOW_EXECUTION_SIGNALED":
            # The coordinator trims and folds names, too.
            name = told.signal_name.strip().casefold()
            found.kind, found.name, found.payload = "signal", name, _first(told.input)
        case "WORKFLOW_EXECUTION_CANCEL_REQUESTED":
            found.kind, found.payload = "cancel_requested", told.cause
        case "WORKFLOW_EXECUTION_CONTINUED_AS_NEW":
            found.kind, found.payload = "continued", told.new_execution_run_id
        case "WORKFLOW_TASK_FAILED":
            found.kind, found.payload = "task_failed", told.failure.message
            found.name = WorkflowTaskFailedCause.Name(told.cause).removeprefix("WORKFLOW_TASK_FAILED_CAUSE_")
        case "WORKFLOW_TASK_STARTED" | "WORKFLOW_TASK_COMPLETED":
            found.kind = kind.removeprefix("WORKFLOW_").lower()
        case "ACTIVITY_TASK_SCHEDULED":
            found.kind, found.name, found.payload = "scheduled", told.activity_type.name, _first(told.input)
            found.most_attempts = told.retry_policy.maximum_attempts
        case "ACTIVITY_TASK_STARTED":
            found.kind, found.scheduled, found.attempt = "started", told.scheduled_event_id, told.attempt
        case "ACTIVITY_TASK_COMPLETED":
            # A person's word for it is not a worker's.
            found.kind = "not_done" if told.identity == BY_HAND else "completed"
            found.scheduled, found.payload = told.scheduled_event_id, _first(told.result)
        case "ACTIVITY_TASK_FAILED" | "ACTIVITY_TASK_TIMED_OUT" | "ACTIVITY_TASK_CANCELED":
            found.kind, found.name, found.scheduled = "not_done", kind.split("_", 2)[2].lower(), told.scheduled_event_id
        case "WORKFLOW_EXECUTION_STARTED":
            found.kind, found.payload = "began", (_first(told.input) or {}).get("schema_version")
        case "WORKFLOW_EXECUTION_FAILED" | "WORKFLOW_EXECUTION_COMPLETED" | "WORKFLOW_EXECUTION_CANCELED":
            found.kind, found.name = "ended", kind
        case _:
            return None
    return found


def _first(payloads: Any) -> Any:
    """The first payload, as JSON; its bytes where it is none."""
    if not payloads.payloads:
        return None
    data = payloads.payloads[0].data
    try:
        return json.loads(data)
    except ValueError:
        return data


# --- the database ------------------------------------------------------------------------------------------------------

CHANGES = "SELECT n, at, pg_xact_commit_timestamp(xmin) AS committed, place, op, row FROM chaos.changes ORDER BY n"


def database(url: str, found: Evidence) -> None:
    """Its rows, and every change of them."""
    with psycopg.connect(url, row_factory=dict_row, connect_timeout=10) as connection:

        def rows(statement: str) -> list[dict[str, Any]]:
            return connection.execute(cast(Any, statement)).fetchall()

        found.decisions = rows("SELECT * FROM decisions ORDER BY decision_id")
        found.instructions = rows("SELECT * FROM instructions ORDER BY prepared_at, instruction_id")
        found.kills = rows("SELECT * FROM kills ORDER BY kill_number")
        found.desk_row = (rows("SELECT * FROM desks") or [{}])[0]
        found.changes = [
            Change(row["n"], row["at"].timestamp(), row["committed"].timestamp(), row["place"], row["op"], row["row"])
            for row in rows(CHANGES)
        ]
        orders = rows("SELECT * FROM paper.orders ORDER BY created_at")
    versions: dict[str, list[Version]] = {}
    for change in found.changes:
        if change.place == "paper.orders":
            versions.setdefault(change.row["order_id"], []).append(_version(change))
    found.orders = [_paper_order(row, versions.get(row["order_id"], [])) for row in orders]


def _version(change: Change) -> Version:
    return Version(change.at, change.committed, change.row["status"], float(change.row["filled_quantity"]))


def _paper_order(row: dict[str, Any], versions: list[Version]) -> VenueOrder:
    return VenueOrder(
        order_id=row["order_id"],
        symbol=row["symbol"],
        status=row["status"],
        reduce_only=row["reduce_only"],
        at=row["created_at"].timestamp(),
        not_after=row["not_after"].timestamp() if row["not_after"] else None,
        committed=versions[0].committed if versions else None,
        filled=float(row["filled_quantity"]),
        market=row["market"],
        side=row["side"],
        quantity=float(row["quantity"]),
        price=None if row["price"] is None else float(row["price"]),
        versions=versions,
    )


def _live_order(row: dict[str, Any]) -> VenueOrder:
    at, status, filled = float(row["time"]) / 1000, str(row["status"]).lower(), float(row["executedQty"])
    return VenueOrder(
        order_id=str(row["orderId"]),
        symbol=row["symbol"],
        status=status,
        reduce_only=bool(row.get("reduceOnly")),
        at=at,
        filled=filled,
        side=row["side"],
        quantity=float(row["origQty"]),
        price=float(row["price"]) or None,
        versions=[Version(at, at, status, filled)],
    )


# --- on the disk -------------------------------------------------------------------------------------------------------


def save(found: Evidence, path: Path) -> None:
    """As JSON, for whoever looks into a failure."""
    path.write_text(json.dumps(found, default=_plain, indent=1))
    for run_id, history in found.histories.items():
        path.with_name(f"history-{run_id}.json").write_text(history)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return vars(value) if hasattr(value, "__dict__") else str(value)
