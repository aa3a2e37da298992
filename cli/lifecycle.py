"""Starts and restarts a desk: the only two ways to a running coordinator. A person uses either, `ais dev` only start.

The incident behind this file: terminate-and-start, based on a state read earlier, lost a confirmed kill in 28 of 30 tries.
So a restart of an open coordinator is a compare-and-set inside it, and a start never touches what was there before. Both
refuse if one of the two stores cannot be read.

Either may break off between two steps. An earlier version then said "nothing was started" of a desk that traded. So each
step, if it fails, says what is known by then and what to do.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.converter import decode_typed_search_attributes
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from cli.moving import NewMode, afterwards, check_named, check_state, check_worker
from cli.opening import register_search_attributes, start_coordinator
from cli.refusals import LOOK, Refused, how_to_stop, may_run, told_if_it_fails
from cli.terms import DeskTerms
from domain.books import EXCHANGE
from domain.desk.applying import apply
from domain.desk.carried import Outcome
from domain.desk.commands import SAME_TERMS, Command, NewTerms
from domain.desk.recording import Tick
from domain.desk.states import CommandKind, Mode, State
from domain.desk.status import Status
from domain.desk.terms import difference_text
from domain.trading.decisions import Decision, DecisionType
from storage import claims
from storage.audit import chain
from storage.claims import AccountKey
from storage.database import Database
from storage.decisions import insert_decisions
from storage.desks import ClearedKill, DeskRecord, NewDesk, begin_start, clear_latch, finish_start, read_desk
from storage.installation import read_id
from workflows import names
from workflows.gateway import (
    PAUSED,
    RUNNING,
    DeskGateway,
    GatewayError,
    SignalUnanswered,
    may_have_arrived,
    paused_text,
)
from workflows.listing import described
from workflows.unheard import unheard_kill

SETTLE_SECONDS = 15.0
OUTCOME_SECONDS = 30.0
POLL_SECONDS = 0.1
LOOK_SECONDS = 2.0
DESCRIBE_TIMEOUT = timedelta(seconds=5)


class RestartAsked(NamedTuple):
    """When a person asked for a restart, by this machine's clock, and the number of the newest kill then, if it was read.

    The clock alone would not do: one that is ahead of Temporal's takes a kill that came meanwhile for an older one.
    """

    at: datetime
    newest_kill: int | None = None

    def is_before_the_kill_of(self, status: Status) -> bool:
        """Whether the newest kill came later."""
        is_newer = self.newest_kill is not None and status.kill_number > self.newest_kill
        return is_newer or (status.last_kill_at is not None and status.last_kill_at > self.at)


class Lifecycle:
    """Starts and restarts one desk."""

    def __init__(self, client: Client, database: Database, plan: DeskTerms, say: Callable[[str], None] = print) -> None:
        self._client = client
        self._say = say
        self._database = database
        self._plan = plan
        self._gateway = DeskGateway(client, plan.desk, patience=5.0)
        self._database_id: str | None = None

    async def start(self, compares: bool = True) -> str:
        """Starts a desk that never ran; does nothing if its coordinator is open. Raises Refused in all other cases.

        `compares`: if the desk is open and answers at once, says where the settings differ from its terms.
        """
        with told_if_it_fails("nothing was started"):
            row, opened = await self._row(), await self._gateway.open_status()
        _refuse_paused(self._plan.desk, opened, "nothing was started")
        if opened == RUNNING:
            return await self._found_open(row, compares)
        if row is not None and (row.killed or row.started_at is not None):
            raise Refused(self._needs_restart("killed" if row.killed else "started before", row))
        if opened is not None:
            raise Refused(self._needs_restart(opened.lower(), row))
        with told_if_it_fails("no coordinator was started; try `ais start` again"):
            await self._database.run(self._begin)
        await self._open(
            "only the desk's row was written; try `ais start` again", WorkflowIDReusePolicy.REJECT_DUPLICATE
        )
        live = self._plan.mode is Mode.LIVE
        alone = "; its account belongs to this desk alone: nobody else may send orders on it" if live else ""
        return f"the coordinator of desk {self._plan.desk!r} is started{alone}"

    async def _found_open(self, row: DeskRecord | None, compares: bool) -> str:
        """Kills at once if the database says killed: Temporal's store may have been restored to before that kill."""
        with told_if_it_fails(
            f"the coordinator is open, but the kill in the database could not be sent to it: {may_run(self._plan.desk)}"
        ):
            if row is not None and row.killed and await self._shown_state() != State.KILLED.value:
                reason = f"the database says killed: {row.reason}"
                payload = {"command_id": f"latch-{row.kill_number}", "actor": "database", "reason": reason}
                await self._gateway.signal(CommandKind.KILL.value, payload)
        with told_if_it_fails(
            f"the coordinator is open already, but the start could not be written to the database; {LOOK}"
        ):
            await self._note_started()
        if compares:
            await self._tell_other_terms()
        found = f"the coordinator of desk {self._plan.desk!r} is open already"
        if row is None or not row.killed:
            return found
        return f"{found}, and killed ({row.reason}, by {row.actor}): only `ais restart` brings it back"

    async def _tell_other_terms(self) -> None:
        """Warns if the settings differ from the open desk's terms: the desk keeps its own."""
        with suppress(GatewayError):
            status = await DeskGateway(self._client, self._plan.desk, LOOK_SECONDS).status()
            if difference := difference_text(status, self._plan.terms()):
                self._say(f"warning: {difference}")

    async def restart(
        self,
        reason: str,
        actor: str,
        asked: RestartAsked,
        terms: NewTerms = SAME_TERMS,
        new_mode: NewMode | None = None,
    ) -> str:
        """Brings a killed desk, or one whose coordinator is gone, back to running. A kill after `asked` wins.

        An open coordinator takes `terms` and `new_mode`. A new one starts with the settings, overridden by these.
        """
        with told_if_it_fails("nothing was restarted"):
            row, opened = await self._row(), await self._gateway.open_status()
        _refuse_paused(self._plan.desk, opened, "nothing was restarted")
        if row is None and opened is None:
            # Found: a mistyped --desk opened a new desk, which began to trade.
            raise Refused(
                f"nothing was restarted: neither Temporal nor the database knows a desk {self._plan.desk!r}. `ais desks` lists "
                "those that Temporal knows; a new desk begins with `ais start`"
            )
        if opened != RUNNING:
            self._plan = _planned(self._plan.with_terms(terms), new_mode)
            return await self._restart_closed(row, reason, actor)
        with told_if_it_fails("nothing was restarted"):
            fields = await self._prepared(terms, new_mode)
        await self._hand_over_database(reason, actor)
        status = await self._settled()
        if asked.is_before_the_kill_of(status):
            # We have just read its number, but the person who asked for the restart cannot have meant this kill.
            raise Refused(f"kill {status.kill_number} came after you asked for the restart; look at `ais status` first")
        await self._restart_signal(status, reason=reason, actor=actor, **fields)
        text = f"desk {self._plan.desk!r} runs again; kill {status.kill_number} is cleared"
        if new_mode is None or not new_mode.moves(status):
            return text
        return f"{text}; its mode is {new_mode.mode.value} now. {afterwards(new_mode)}"

    async def _prepared(self, terms: NewTerms, new_mode: NewMode | None) -> dict[str, object]:
        """The terms for the restart's signal, after checking that the account and a worker for them are there."""
        status = await self._gateway.status()
        if new_mode is not None and new_mode.moves(status):
            check_state(status, new_mode)
            await check_worker(self._client, status.desk, new_mode.mode)
            self._plan = _planned(self._plan, new_mode)
            await self._database.run(self._claim)
            return new_mode.fields(terms)
        check_named(status, terms, new_mode)
        if status.mode is self._plan.mode:
            await self._database.run(self._claim)
        return terms.model_dump(exclude_none=True, exclude={"mode"})

    async def release(self, reason: str, actor: str) -> str:
        """Gives back the account of a desk that is killed and verified, or that has no open coordinator."""

        def give_back(connection: Connection) -> bool:
            given = claims.release(connection, self._plan.desk) > 0
            if given:
                written = insert_decisions(connection, [self._control_row("release", reason, actor)])
                chain.append(connection, map(chain.decision_entry, written))
            return given

        with told_if_it_fails("nothing was released"):
            opened = await self._gateway.open_status()
            _refuse_paused(self._plan.desk, opened, "nothing was released")
            if opened == RUNNING:
                status = await self._gateway.status()
                if _may_act_on_its_account(status):
                    raise Refused(
                        f"desk {status.desk!r} is {status.state.value} and may still act on its account: kill it, and wait until "
                        "`ais status` says verified, with no open instruction and no unknown order"
                    )
            given = await self._database.run(give_back)
        if not given:
            raise Refused(f"desk {self._plan.desk!r} has no account to give back")
        return f"desk {self._plan.desk!r} has given back its account; another desk can use it now"

    async def _restart_signal(self, status: Status, **fields: object) -> None:
        command_id = f"restart-{uuid.uuid4().hex}"
        payload = {"command_id": command_id, "kill_number": status.kill_number, **fields}
        payload["sent_at"] = datetime.now(UTC).isoformat()
        try:
            await self._gateway.signal(CommandKind.RESTART.value, payload)
        except SignalUnanswered as error:
            unknown = f"it is not known whether the restart was recorded: {may_run(self._plan.desk)}"
            raise Refused(f"{unknown} ({error})") from error
        except GatewayError as error:
            raise Refused(f"nothing was restarted ({error})") from error
        await self._check_restarted(command_id)

    async def _check_restarted(self, command_id: str) -> None:
        """Waits for the outcome of a restart. Raises Refused unless it is applied."""
        outcome = None
        with suppress(GatewayError):
            found = await self._gateway.settled(command_id, OUTCOME_SECONDS)
            outcome = found.outcomes.get(command_id) if found else None
        if outcome is None or outcome.outcome is Outcome.PENDING:
            unknown = "the restart is recorded, but it is not known whether it took effect"
            raise Refused(f"{unknown}: {may_run(self._plan.desk)}")
        if outcome.outcome is not Outcome.APPLIED:
            raise Refused(outcome.detail or "the restart was refused")

    async def _hand_over_database(self, reason: str, actor: str) -> None:
        """If a person restarts the desk with another database, the desk moves there. The kill is latched there first."""
        with told_if_it_fails("nothing was restarted"):
            status = await self._gateway.status()
        if None in (status.database_id, self._database_id) or status.database_id == self._database_id:
            return
        if status.state is not State.KILLED:
            raise Refused(
                f"desk {self._plan.desk!r} is {status.state.value} on database {status.database_id}, but AIS_DATABASE_URL "
                f"points to {self._database_id}. Correct AIS_DATABASE_URL; or, to move the desk there, kill it first"
            )
        self._say(f"moving the desk from database {status.database_id} to database {self._database_id}")
        await self._restart_signal(status, reason=reason, actor=actor, database_id=self._database_id)

    async def _settled(self) -> Status:
        """Waits until the kill is written and no order is unknown, for a limited time. After that the coordinator decides."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            with told_if_it_fails("nothing was restarted"):
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

    async def _restart_closed(self, row: DeskRecord | None, reason: str, actor: str) -> str:
        cleared = ClearedKill(row.kill_number if row else 0, row.kill_id if row else None)
        control, kill = self._control_row("restart", reason, actor), await self._unheard_kill()

        def clear(connection: Connection) -> bool:
            self._begin(connection)
            return clear_latch(connection, self._plan.desk, cleared, control)

        with told_if_it_fails("no coordinator was started; try `ais restart` again: it clears the same kill"):
            settled = await self._database.run(clear)
        if not settled:
            raise Refused("the database's row of this desk changed meanwhile; look at `ais status` and try again")
        facts: dict[str, object] = {"reason": reason, "actor": actor, "kill_id": cleared.kill_id or ""}
        facts |= {
            "cleared_number": cleared.number,
            "cleared_by": control.decision_id,
            "restarts": [control.decision_id],
        }
        before = "only the database was changed: the latch is cleared and the log has the row; try `ais restart` again"
        await self._open(before, WorkflowIDReusePolicy.ALLOW_DUPLICATE, cleared.number, kill, **facts)
        started = f"a new coordinator of desk {self._plan.desk!r} is started"
        if kill is None:
            return started
        return (
            f"{started}, already killed: the closed one had received a kill that was never carried out "
            f"({kill.reason}, by {kill.actor}). Check positions and orders at the venue, then `ais restart` once more"
        )

    async def _unheard_kill(self) -> Command | None:
        try:
            return await unheard_kill(self._client, names.workflow_id(self._plan.desk))
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise Refused(
                f"nothing was restarted: cannot find out whether the closed coordinator had received a kill (Temporal: {error})"
            ) from error

    async def _open(
        self,
        before: str,
        reuse: WorkflowIDReusePolicy,
        kill_number: int = 0,
        kill: Command | None = None,
        **facts: object,
    ) -> None:
        """Starts the coordinator, and notes that in the database. `before` says what was done until then."""
        try:
            registered = await register_search_attributes(self._client, self._say)
            carried = self._plan.carried(kill_number, self._database_id, registered).model_copy(update=facts)
            if kill:
                apply(carried, kill, Tick(datetime.now(UTC), lambda prefix: f"{prefix}_{uuid.uuid4().hex}"))
                carried.shown_state = State.KILLED if carried.search_attributes else None
            await start_coordinator(self._client, carried, reuse)
        except WorkflowAlreadyStartedError as error:
            raise Refused(f"a coordinator of this desk was started meanwhile; {LOOK}", passing=True) from error
        except (RPCError, RuntimeError) as error:
            # Temporal may have received the start without answering.
            unknown = f"it is not known whether the coordinator was started: {may_run(self._plan.desk)}"
            known = unknown if may_have_arrived(error) else f"no coordinator was started; {before}"
            raise Refused(f"{known} (Temporal: {error})", passing=True) from error
        done = "the coordinator is started and runs as soon as a worker is up, but the database could not be updated;"
        with told_if_it_fails(f"{done} no new order goes out until it answers; {LOOK}; {how_to_stop(self._plan.desk)}"):
            await self._note_started()

    async def _note_started(self) -> None:
        await self._database.run(lambda connection: finish_start(connection, self._plan.desk, datetime.now(UTC)))

    async def _shown_state(self) -> str | None:
        """The state in the search attribute. None if it cannot be read; one more kill then does no harm."""
        try:
            found = await described(self._client, names.workflow_id(self._plan.desk), DESCRIBE_TIMEOUT)
        except (RPCError, RuntimeError):
            return None
        attributes = decode_typed_search_attributes(found.workflow_execution_info.search_attributes)
        return attributes.get(names.STATE_ATTRIBUTE)

    async def _row(self) -> DeskRecord | None:
        def work(connection: Connection) -> tuple[str | None, DeskRecord | None]:
            return read_id(connection), read_desk(connection, self._plan.desk)

        self._database_id, row = await self._database.run(work)
        return row

    def _begin(self, connection: Connection) -> None:
        self._claim(connection)
        facts = NewDesk(
            desk=self._plan.desk, mode=self._plan.mode, symbols=list(self._plan.symbols), now=datetime.now(UTC)
        )
        begin_start(connection, facts)

    def _claim(self, connection: Connection) -> None:
        """Claims the account for this desk alone. If these settings do not name the account, the worker claims it."""
        if self._plan.mode is not Mode.LIVE or not self._plan.account:
            return
        claim = claims.take(connection, AccountKey(EXCHANGE, self._plan.account), self._plan.desk)
        if claim.desk != self._plan.desk:
            raise Refused(claims.held_text(self._plan.desk, claim))

    def _control_row(self, what: str, reason: str, actor: str) -> Decision:
        return Decision(
            decision_id=f"decision_{uuid.uuid4().hex}",
            timestamp=datetime.now(UTC),
            decision_type=DecisionType.CONTROL,
            summary=f"{what} applied by {actor}: {reason}",
            desk=self._plan.desk,
        )

    def _needs_restart(self, why: str, row: DeskRecord | None) -> str:
        killed_by = f" ({row.reason}, by {row.actor})" if row and row.killed else ""
        return (
            f"desk {self._plan.desk!r} was {why}{killed_by} and has no open coordinator; it does not start by itself. "
            'To bring it back: ais restart --reason "…"'
        )


def _refuse_paused(desk: str, opened: str | None, known: str) -> None:
    """Raises Refused for a coordinator that is paused in Temporal: it is open, and may change both stores once it continues."""
    if opened == PAUSED:
        raise Refused(f"{known}: {paused_text(desk)}")


def _may_act_on_its_account(status: Status) -> bool:
    """Whether the desk may send anything to the exchange, now or after a pending restart."""
    if status.mode is not Mode.LIVE:
        # It has left the account already: a desk moves only after it is done there.
        return status.restart_pending
    verified = status.state is State.KILLED and status.kill is not None and status.kill.verified_at is not None
    return not verified or bool(status.unknown_orders or status.open_instructions_total)


def _planned(plan: DeskTerms, new_mode: NewMode | None) -> DeskTerms:
    """The plan, in the mode that a person named."""
    return plan if new_mode is None else replace(plan, mode=new_mode.mode, account=new_mode.account)
