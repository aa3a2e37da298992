"""Starting and restarting a desk: the only two ways to a running coordinator, both taken by a person or by `ais dev`.

The incident behind this file: terminate-and-start, decided on a state that was read before, lost a confirmed kill in 28 of 30
tries. So a restart of an open coordinator is a compare-and-set inside it, a start never touches what was there before, and
either refuses where one of the two stores cannot be read.

Either may break off in between. "Nothing was started", it once said of a desk that traded: so each step says what is known when
it is the one that fails, and what to do.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from domain.books import EXCHANGE
from domain.carried import Carried, Outcome
from domain.commands import Command
from domain.decisions import Decision, DecisionType
from domain.desk import apply
from domain.limits import Limits
from domain.states import CommandKind, Mode, State
from domain.status import CommandOutcome, Status
from domain.traces import Tick
from domain.values import printable
from storage import claims
from storage.claims import AccountKey
from storage.database import Database, DatabaseUnavailable
from storage.decisions import insert_decisions
from storage.desks import Cleared, DeskFacts, DeskRecord, begin_start, clear_latch, finish_start, read_desk
from storage.installation import read_id
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import (
    DeskGateway,
    GatewayError,
    SignalUnanswered,
    may_have_arrived,
    registered_attributes,
)
from workflows.patience import TASK_TIMEOUT
from workflows.unheard import unheard_kill

OPEN = "RUNNING"
SETTLE_SECONDS = 15.0
OUTCOME_SECONDS = 30.0
POLL_SECONDS = 0.1


class Refused(Exception):
    """Not started, or not restarted; the text says why and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


@dataclass(frozen=True)
class Plan:
    """What a start fixes for as long as the coordinator lives."""

    desk: str
    mode: Mode
    symbols: tuple[str, ...]
    cycle_seconds: float
    limits: Limits
    kill_flattens: bool = False
    # The venue account's fingerprint; None where this process does not know it: the first reading tells.
    account: str | None = None


class Lifecycle:
    """Starts and restarts one desk."""

    def __init__(self, client: Client, database: Database, plan: Plan, say: Callable[[str], None] = print) -> None:
        self._client = client
        self._say = say
        self._database = database
        self._plan = plan
        self._gateway = DeskGateway(client, plan.desk, patience=5.0)
        self._database_id: str | None = None

    async def start(self) -> str:
        """Starts a desk that never ran, or does nothing where its coordinator is open. Refused for anything else."""
        with _told("nothing was started"):
            row, opened = await self._row(), await self._gateway.open_status()
        if opened == OPEN:
            with _told(
                f"the coordinator is open, and could not be told that the database says killed: {self._may_run}"
            ):
                await self._kill_if_latched(row)
            with _told(f"the coordinator is open already; the database could not be told; {self._look}"):
                await self._note_started()
            return f"the coordinator of desk {self._plan.desk!r} is open already"
        if row is not None and (row.killed or row.started_at is not None):
            raise Refused(self._needs_restart("killed" if row.killed else "started before", row))
        if opened is not None:
            raise Refused(self._needs_restart(opened.lower(), row))
        with _told("no coordinator was started; `ais start` may be tried again"):
            await self._database.run(self._begin)
        with self._started("the desk's row is prepared; `ais start` may be tried again"):
            await self._open(0, WorkflowIDReusePolicy.REJECT_DUPLICATE, {})
        await self._finish()
        return f"the coordinator of desk {self._plan.desk!r} is started{self._alone}"

    async def restart(self, reason: str, actor: str, asked_at: datetime) -> str:
        """Brings a killed desk, or one whose coordinator is gone, back to running. A kill after `asked_at` beats it."""
        with _told("nothing was restarted"):
            row, opened = await self._row(), await self._gateway.open_status()
        if opened == OPEN:
            return await self._restart_open(reason, actor, asked_at)
        return await self._restart_closed(row, reason, actor)

    async def release(self, reason: str, actor: str) -> str:
        """Gives back the account of a desk that is killed and verified, or has no coordinator any more."""
        with _told("nothing was released"):
            opened = await self._gateway.open_status()
            if opened == OPEN:
                _refuse_release(await self._gateway.status())
            row = self._control_row("release", reason, actor)
            given = await self._database.run(lambda connection: self._give_back(connection, row))
        if not given:
            raise Refused(f"desk {self._plan.desk!r} holds no account")
        return f"desk {self._plan.desk!r} holds its account no longer; another desk may be started on it"

    def _give_back(self, connection: Connection, row: Decision) -> bool:
        given = claims.release(connection, self._plan.desk) > 0
        if given:
            insert_decisions(connection, [row])
        return given

    async def _restart_open(self, reason: str, actor: str, asked_at: datetime) -> str:
        with _told("nothing was restarted"):
            await self._database.run(self._claim)
        await self._hand_over_database(reason, actor)
        status = await self._settled()
        if status.last_kill_at and status.last_kill_at > asked_at:
            # Its number is the one we have just read, but whoever asked for the restart cannot have meant this kill.
            raise Refused(f"kill {status.kill_number} came after the restart was asked for; look at `ais status` first")
        await self._restart_signal(status, reason=reason, actor=actor)
        return f"desk {self._plan.desk!r} runs again; kill {status.kill_number} is cleared"

    async def _restart_signal(self, status: Status, **told: object) -> None:
        command_id = f"restart-{uuid.uuid4().hex}"
        payload = {"command_id": command_id, "kill_number": status.kill_number, **told}
        payload["sent_at"] = datetime.now(UTC).isoformat()
        await self._send_restart(payload)
        outcome = await self._outcome(command_id)
        if outcome.outcome is not Outcome.APPLIED:
            raise Refused(outcome.detail or "the restart was refused")

    async def _hand_over_database(self, reason: str, actor: str) -> None:
        """A person restarts with another database than the desk's: it becomes the desk's, and takes the kill's latch first."""
        with _told("nothing was restarted"):
            status = await self._gateway.status()
        if None in (status.database_id, self._database_id) or status.database_id == self._database_id:
            return
        if status.state is not State.KILLED:
            raise Refused(
                f"desk {self._plan.desk!r} is {status.state.value} on database {status.database_id}, and AIS_DATABASE_URL "
                f"leads to {self._database_id}: correct it; or kill the desk first, and it is restarted on this one"
            )
        self._say(f"the desk's database was {status.database_id}, from now on it is {self._database_id}")
        await self._restart_signal(status, reason=reason, actor=actor, database_id=self._database_id)

    async def _send_restart(self, payload: dict[str, object]) -> None:
        try:
            await self._gateway.signal(CommandKind.RESTART.value, payload)
        except SignalUnanswered as error:
            told = f"whether the restart was recorded is not known: {self._may_run}"
            raise Refused(f"{told} ({error})") from error
        except GatewayError as error:
            raise Refused(f"nothing was restarted ({error})") from error

    async def _settled(self) -> Status:
        """The status once the kill is written and no order is unknown, or as it is after a while: the coordinator decides."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            with _told("nothing was restarted"):
                status = await self._gateway.status()
            if status.state is not State.KILLED:
                raise Refused(
                    f"desk {self._plan.desk!r} is {status.state.value}, not killed; there is nothing to restart"
                )
            written = status.kill and status.kill.row_written and status.kill.latched
            ready = written and not status.unknown_orders and not status.run_ending
            if ready or time.monotonic() > deadline:
                return status
            await asyncio.sleep(POLL_SECONDS)

    async def _outcome(self, command_id: str) -> CommandOutcome:
        deadline = time.monotonic() + OUTCOME_SECONDS
        while time.monotonic() < deadline:
            try:
                outcome = (await self._gateway.outcomes([command_id])).outcomes.get(command_id)
            except GatewayError:
                # Recorded is recorded: whoever does not answer now may carry it out all the same.
                outcome = None
            if outcome and outcome.outcome is not Outcome.PENDING:
                return outcome
            await asyncio.sleep(POLL_SECONDS)
        raise Refused(f"the restart is recorded, and what became of it is not known: {self._may_run}")

    async def _restart_closed(self, row: DeskRecord | None, reason: str, actor: str) -> str:
        cleared = Cleared(row.kill_number if row else 0, row.kill_id if row else None)
        control, kill = self._control_row("restart", reason, actor), await self._unheard_kill()

        def clear(connection: Connection) -> bool:
            self._begin(connection)
            return clear_latch(connection, self._plan.desk, cleared, control)

        with _told("no coordinator was started; `ais restart` may be tried again: it clears the same kill"):
            settled = await self._database.run(clear)
        if not settled:
            raise Refused("the database's row of this desk changed meanwhile; look at `ais status` and try again")
        told: dict[str, object] = {"reason": reason, "actor": actor, "kill_id": cleared.kill_id or ""}
        told |= {"cleared_number": cleared.number, "cleared_by": control.decision_id, "restarts": [control.decision_id]}
        with self._started("the latch is cleared, and the decision log says so; `ais restart` may be tried again"):
            await self._open(cleared.number, WorkflowIDReusePolicy.ALLOW_DUPLICATE, told, kill)
        await self._finish()
        started = f"a new coordinator of desk {self._plan.desk!r} is started"
        if kill is None:
            return started
        return (
            f"{started}, and killed: the closed one was handed a kill that nobody carried out ({kill.reason}, by {kill.actor}). "
            f"Check positions and orders at the venue, then `ais restart` once more"
        )

    async def _unheard_kill(self) -> Command | None:
        try:
            return await unheard_kill(self._client, names.workflow_id(self._plan.desk))
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise Refused(
                f"nothing was restarted: whether the closed coordinator was handed a kill cannot be read (Temporal: {error})"
            ) from error

    async def _open(
        self, kill_number: int, reuse: WorkflowIDReusePolicy, told: dict[str, object], kill: Command | None = None
    ) -> None:
        carried = self._carried(kill_number, await self._register_search_attributes()).model_copy(update=told)
        if kill:
            apply(carried, kill, Tick(datetime.now(UTC), lambda prefix: f"{prefix}_{uuid.uuid4().hex}"))
            carried.shown_state = State.KILLED if carried.search_attributes else None
        await self._client.start_workflow(
            Coordinator.run,
            carried,
            id=names.workflow_id(self._plan.desk),
            task_queue=names.TASK_QUEUE,
            id_reuse_policy=reuse,
            # Never take over what somebody else has just started: it may have been killed already.
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            task_timeout=TASK_TIMEOUT,
            search_attributes=_attributes(carried) if carried.search_attributes else None,
            static_summary=f"AIS desk {self._plan.desk} ({self._plan.mode.value})",
            static_details="Kill it with the signal `kill` or the Cancel button; see docs/runbook.md.",
        )

    @contextmanager
    def _started(self, before: str) -> Iterator[None]:
        """The start itself, which may have been heard without an answer; `before` is what was done until then."""
        try:
            yield
        except WorkflowAlreadyStartedError as error:
            raise Refused(f"a coordinator of this desk was started meanwhile; {self._look}") from error
        except (RPCError, RuntimeError) as error:
            if may_have_arrived(error):
                told = f"whether the coordinator was started is not known: {self._may_run}"
            else:
                told = f"no coordinator was started; {before}"
            raise Refused(f"{told} (Temporal: {error})") from error

    async def _finish(self) -> None:
        told = "the coordinator is started and runs as soon as a worker is up; only the database could not be told, and"
        with _told(f"{told} until it answers no new order goes out; {self._look}; {self._stop}"):
            await self._note_started()

    async def _note_started(self) -> None:
        await self._database.run(lambda connection: finish_start(connection, self._plan.desk, datetime.now(UTC)))

    @property
    def _may_run(self) -> str:
        return f"the desk may be running; {self._look}; {self._stop}"

    @property
    def _look(self) -> str:
        return "look at `ais status`"

    @property
    def _stop(self) -> str:
        return f"`temporal workflow signal --workflow-id {names.workflow_id(self._plan.desk)} --name kill` stops it"

    async def _kill_if_latched(self, row: DeskRecord | None) -> None:
        """Temporal's store may have come back from before a kill. Then the database knows better, and nobody waits for
        the next observation."""
        if row is None or not row.killed or await self._shown_state() == State.KILLED.value:
            return
        payload = {
            "command_id": f"latch-{row.kill_number}",
            "actor": "database",
            "reason": f"the database says killed: {row.reason}",
        }
        await self._gateway.signal(CommandKind.KILL.value, payload)

    async def _shown_state(self) -> str | None:
        """What the search attribute says; None where it cannot be read, and then a kill more does no harm."""
        try:
            described = await self._client.get_workflow_handle(names.workflow_id(self._plan.desk)).describe()
        except (RPCError, RuntimeError):
            return None
        return described.typed_search_attributes.get(names.STATE_ATTRIBUTE)

    async def _register_search_attributes(self) -> bool:
        """Registers what is missing, where it may. Without them the desk starts all the same, and never upserts."""
        service, namespace = self._client.operator_service, self._client.namespace
        wanted = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in names.SEARCH_ATTRIBUTES}
        try:
            registered = await registered_attributes(self._client)
            missing = {name: kind for name, kind in wanted.items() if name not in registered}
            if missing:
                request = AddSearchAttributesRequest(namespace=namespace, search_attributes=missing)
                await service.add_search_attributes(request)
        except RPCError as error:
            self._say(_how_to_register(error))
            return False
        return True

    async def _row(self) -> DeskRecord | None:
        def work(connection: Connection) -> tuple[str | None, DeskRecord | None]:
            return read_id(connection), read_desk(connection, self._plan.desk)

        self._database_id, row = await self._database.run(work)
        return row

    def _facts(self) -> DeskFacts:
        plan = self._plan
        return DeskFacts(desk=plan.desk, mode=plan.mode, symbols=list(plan.symbols), now=datetime.now(UTC))

    def _carried(self, kill_number: int, search_attributes: bool) -> Carried:
        plan, now = self._plan, datetime.now(UTC)
        return Carried(
            desk=plan.desk,
            mode=plan.mode,
            symbols=list(plan.symbols),
            cycle_seconds=plan.cycle_seconds,
            limits=plan.limits,
            kill_flattens=plan.kill_flattens,
            database_id=self._database_id,
            account=plan.account,
            database_seen_at=now,
            search_attributes=search_attributes,
            started_at=now,
            since=now,
            kill_number=kill_number,
            latched_number=kill_number,
            # Ids of commands may come again, and their instructions are in the database: each kill was a round at most.
            forgotten_rounds=kill_number,
            shown_state=State.RUNNING if search_attributes else None,
        )

    def _begin(self, connection: Connection) -> None:
        self._claim(connection)
        begin_start(connection, self._facts())

    def _claim(self, connection: Connection) -> None:
        """An account belongs to one desk. Where these settings do not name it, the worker claims it."""
        if self._plan.mode is not Mode.LIVE or not self._plan.account:
            return
        claim = claims.take(connection, AccountKey(EXCHANGE, self._plan.account), self._plan.desk)
        if claim.desk != self._plan.desk:
            raise Refused(claims.held_text(self._plan.desk, claim))

    @property
    def _alone(self) -> str:
        live = self._plan.mode is Mode.LIVE
        return "; its account belongs to this desk alone: nobody else may send orders on it" if live else ""

    def _control_row(self, what: str, reason: str, actor: str) -> Decision:
        return Decision(
            decision_id=f"decision_{uuid.uuid4().hex}",
            timestamp=datetime.now(UTC),
            decision_type=DecisionType.CONTROL,
            summary=f"{what} applied by {actor}: {reason}",
            desk=self._plan.desk,
        )

    def _needs_restart(self, why: str, row: DeskRecord | None) -> str:
        told = f" ({row.reason}, by {row.actor})" if row and row.killed else ""
        return (
            f"desk {self._plan.desk!r} was {why}{told} and has no open coordinator; it never starts by itself. "
            'A person brings it back: ais restart --reason "…"'
        )


@contextmanager
def _told(known: str) -> Iterator[None]:
    """A step that may fail: `known` is what is then certain, and what to do."""
    try:
        yield
    except DatabaseUnavailable as error:
        raise Refused(f"{known} (the database cannot be reached: {error})") from error
    except GatewayError as error:
        raise Refused(f"{known} ({error})") from error


def _refuse_release(status: Status) -> None:
    """Raises unless nothing of this desk can happen on its account any more."""
    verified = status.state is State.KILLED and status.kill is not None and status.kill.verified_at is not None
    if not verified or status.unknown_orders or status.open_instructions_total:
        raise Refused(
            f"desk {status.desk!r} is {status.state.value} and may still act on its account: kill it, and wait until "
            "`ais status` says verified, with no open instruction and no unknown order"
        )


def _how_to_register(error: RPCError) -> str:
    options = " ".join(f"--name {key.name} --type Keyword" for key in names.SEARCH_ATTRIBUTES)
    return (
        f"warning: the search attributes could not be registered ({error.message}); the desk runs without them, and "
        f"`temporal workflow list --query 'AisState=…'` will not find it. An administrator can register them before the "
        f"next start: temporal operator search-attribute create {options}"
    )


def _attributes(carried: Carried) -> TypedSearchAttributes:
    return TypedSearchAttributes(
        [
            SearchAttributePair(names.DESK_ATTRIBUTE, carried.desk),
            SearchAttributePair(names.STATE_ATTRIBUTE, carried.state.value),
            SearchAttributePair(names.MODE_ATTRIBUTE, carried.mode.value),
        ]
    )
