"""Carries out `ais kill`, `pause`, `resume`, `cancel-all` and `deleverage`: sends a signal to Temporal, waits for its outcome,
and says only what is known. They need neither the API nor the database."""

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any, NamedTuple

import settings
from cli.actor import actor
from cli.connecting import connect_lazily
from domain.desk.carried import Outcome
from domain.desk.states import CommandKind, Mode, State
from domain.desk.status import CommandOutcome, KillStatus, Status
from domain.values import iso, plain, printable
from startup import Say
from workflows.gateway import (
    PAUSED,
    DeskGateway,
    GatewayError,
    NoCoordinator,
    SignalRefused,
    SignalUnanswered,
    TemporalUnreachable,
    paused_text,
)

QUERY_SECONDS = 3.0
OUTCOME_SECONDS = 20.0
RETRY_SECONDS = 1.0
POLL_SECONDS = 0.25


class ExitCode(IntEnum):
    """The exit codes that scripts can rely on; 2 is wrong usage."""

    DONE = 0
    REFUSED = 1
    RECORDED = 3
    UNKNOWN = 4


class Sent(IntEnum):
    """Whether Temporal has the command. It only ever grows: a later try that fails takes nothing back."""

    NO = 0
    PERHAPS = 1
    YES = 2


class Result(NamedTuple):
    """What is known about a command in the end."""

    code: ExitCode
    text: str
    outcome: CommandOutcome | None = None
    status: Status | None = None


class OperatorCommand:
    """One command from a person at this command line to one desk."""

    def __init__(self, kind: CommandKind, fields: Mapping[str, Any], say: Say) -> None:
        self._kind = kind
        self._say = say
        self._told: str | None = None
        self._outcome: CommandOutcome | None = None
        self._status: Status | None = None
        # Why the newest query was not answered. If set, what was read before is no longer current.
        self._silence: str | None = None
        self._where: Mapping[str, Any] = {}
        self.sent = Sent.NO
        self.command_id = f"{kind.value}-{uuid.uuid4().hex}"
        # Only the name is read: a kill must not fail because of a setting that it does not need.
        self.desk = settings.DeskName.load().desk
        head = {"command_id": self.command_id, "actor": actor(), "sent_at": datetime.now(UTC).isoformat()}
        self._payload = {**head, **fields}

    async def run(self, wait_seconds: float = 0) -> Result:
        """Sends it and waits for its outcome; with `wait_seconds` also until a kill is verified."""
        # Read once: `ais dev` forgets its addresses when it stops, and a kill keeps trying.
        self._where = settings.temporal_connect_config()
        gateway = DeskGateway(await connect_lazily(), self.desk, patience=QUERY_SECONDS)
        try:
            await (self._kill(gateway) if self._kind is CommandKind.KILL else self._try(self._signal(gateway)))
            await self._settle(gateway, min(OUTCOME_SECONDS, wait_seconds or OUTCOME_SECONDS))
        except NoCoordinator as error:
            return self._closed(error)
        except GatewayError as error:
            return self._unsent(str(error))
        if self._outcome is None or self._outcome.outcome is Outcome.PENDING:
            return self._unfinished("")
        if self._outcome.outcome is Outcome.REFUSED:
            why = self._outcome.detail or "no reason was given"
            return Result(ExitCode.REFUSED, f"refused: {why}", self._outcome, self._status)
        if self._kind is CommandKind.KILL and wait_seconds:
            return await self._verified(gateway, wait_seconds)
        return Result(ExitCode.DONE, _applied_text(self.desk, self._outcome, self._status), self._outcome, self._status)

    def interrupted(self) -> Result:
        """What is known when a person stops waiting."""
        if self.sent is not Sent.YES:
            return self._unsent("you stopped waiting")
        return self._unfinished("you stopped waiting; ")

    # --- sending ---------------------------------------------------------------------------------------------------

    def _signal(self, gateway: DeskGateway) -> Awaitable[None]:
        return gateway.signal(self._kind.value, self._payload)

    async def _try(self, call: Awaitable[None]) -> None:
        """One call that may record the command."""
        before, self.sent = self.sent, max(self.sent, Sent.PERHAPS)
        try:
            await call
        except SignalUnanswered:
            raise
        except GatewayError:
            self.sent = before
            raise
        self.sent = Sent.YES

    async def _kill(self, gateway: DeskGateway) -> None:
        """Tries until Temporal takes it. Repeating is safe: the id stays the same, and a kill only ever kills."""
        while self.sent is not Sent.YES:
            try:
                try:
                    await self._try(self._signal(gateway))
                except SignalRefused:
                    # A run takes 10,000 signals. After that it still accepts a cancellation (measured), which means kill.
                    await self._try(gateway.request_cancel(json.dumps(self._payload)))
            except (TemporalUnreachable, SignalRefused, SignalUnanswered) as error:
                self._tell(_other_ways(self.desk, gateway.workflow_id, error, self.sent, self._where))
                await asyncio.sleep(RETRY_SECONDS)

    # --- waiting ---------------------------------------------------------------------------------------------------

    async def _settle(self, gateway: DeskGateway, seconds: float) -> None:
        found = await gateway.settled(
            self.command_id, seconds, lambda: self._tell("recorded by Temporal; waiting for the coordinator")
        )
        if found is not None:
            self._status, self._outcome = found.status, found.outcomes.get(self.command_id)
            return
        with suppress(GatewayError):
            if await gateway.open_status() == PAUSED:
                self._silence = paused_text(self.desk)

    async def _verified(self, gateway: DeskGateway, seconds: float) -> Result:
        """Waits until the kill in force is verified and, if it flattens, until the desk is flat."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                status, self._silence = await gateway.status(), None
                self._status = status
            except NoCoordinator as error:
                return self._closed(error)
            except GatewayError as error:
                self._silence = str(error)
                self._tell(f"killed; the coordinator does not answer now: {error}")
            else:
                if status.state is not State.KILLED or status.kill is None:
                    why = f"{status.reason} (by {status.actor})" if status.actor else "reason not known"
                    text = f"NO LONGER KILLED: desk {self.desk!r} was killed, but is {status.state.value} again: {why}"
                    return Result(ExitCode.RECORDED, text, self._outcome, status)
                kill = status.kill
                # In shadow nothing was sent, so there is nothing to verify.
                if kill.is_over or status.mode is Mode.SHADOW:
                    return Result(ExitCode.DONE, _killed_text(status, kill), self._outcome, status)
                self._tell(f"killed; {kill.progress}; outstanding: {_residue(kill)}")
            await asyncio.sleep(POLL_SECONDS)
        return self._unfinished(f"after {seconds:g} s: ")

    def _tell(self, text: str) -> None:
        """Says something new, but nothing twice in a row. Nobody has to read it: a closed pipe must not end a kill."""
        if text != self._told:
            self._told = text
            with suppress(OSError):
                self._say(text)

    # --- what is known at the end ------------------------------------------------------------------------------------

    def _unsent(self, why: str) -> Result:
        if self.sent is Sent.NO:
            return Result(ExitCode.REFUSED, f"nothing was sent: {why}")
        again = "look at `ais status`"
        if self._kind is CommandKind.DELEVERAGE:
            again = "look at `ais status` before you repeat it: a second one would reduce what the first one left"
        return Result(ExitCode.UNKNOWN, f"it is not known whether the command was recorded: {again} ({why})")

    def _closed(self, error: NoCoordinator) -> Result:
        """No coordinator is open, so nothing is promised. Somebody who wants to stop is not told how to start."""
        left = "AIS sends nothing for this desk; orders and positions stay at the venue: cancel and close them there"
        if self._outcome is not None and self._outcome.outcome is Outcome.APPLIED:
            text = f"desk {self.desk!r} was killed, but its coordinator closed before the kill was verified: {left}"
            return Result(ExitCode.RECORDED, text, self._outcome, self._status)
        why = str(error) if self._kind is not CommandKind.KILL else f"no coordinator of desk {self.desk!r} is open"
        code = ExitCode.REFUSED if self.sent is Sent.NO else ExitCode.UNKNOWN
        known = "nothing was sent" if self.sent is Sent.NO else "no coordinator will carry the command out"
        return Result(code, f"{known}: {why}. {left}", self._outcome)

    def _unfinished(self, since: str) -> Result:
        """Recorded but not carried out yet; or killed but not verified."""
        status, kill = self._status, self._status.kill if self._status else None
        if self._kind is CommandKind.KILL and status and status.state is State.KILLED and kill:
            old = f" as last read (no answer now: {self._silence})" if self._silence else ""
            over = f"{since}desk {self.desk!r} is killed, but the kill is not over yet{old}"
            text = f"{over}; {kill.progress}; outstanding: {_residue(kill)}"
        elif self._outcome is not None:
            order = (
                "it is reading the symbols at the venue"
                if self._kind is CommandKind.ADD_SYMBOLS
                else "an order may be on its way"
            )
            text = f"{since}the coordinator has taken the command, but not finished it: {order}"
        elif status is not None:
            text = f"{since}recorded by Temporal, but when the coordinator last answered, it had not taken the command up yet"
        elif self._silence:
            text = f"{since}recorded by Temporal, not carried out: {self._silence}"
        else:
            is_kill = self._kind is CommandKind.KILL
            by_hand = "; until then open orders can still fill: cancel them at the venue by hand"
            then = (
                f"the kill takes effect once a worker runs{by_hand}"
                if is_kill
                else "it takes effect once a worker runs"
            )
            text = f"{since}recorded by Temporal, not confirmed: no worker has answered for the coordinator; {then}"
        return Result(ExitCode.RECORDED, f"{text}. Look at `ais status`", self._outcome, status)


def as_json(command: OperatorCommand, kind: CommandKind, result: Result) -> str:
    """The result for programs. `result`: applied, refused, recorded or unknown."""
    words = {ExitCode.DONE: "applied", ExitCode.REFUSED: "refused", ExitCode.RECORDED: "recorded"}
    kill = result.status.kill if result.status else None
    keys = {
        "desk": command.desk,
        "command": kind.value,
        "command_id": command.command_id,
        "result": words.get(result.code, "unknown"),
        "detail": printable(result.text),
        "outcome": result.outcome.model_dump(mode="json") if result.outcome else None,
        "kill": kill.model_dump(mode="json") if kill else None,
    }
    return json.dumps(keys, indent=2)


def fraction(text: str) -> Decimal:
    """`50%` or `0.5`, as a fraction above 0 and up to 1; raises ValueError."""
    try:
        share = Decimal(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ArithmeticError:
        share = Decimal(0)
    if not share.is_finite() or not 0 < share <= 1:
        raise ValueError(f"{text!r} is not a share of a position: give 50% or 0.5, or 100% for all of it")
    return share


def _residue(kill: KillStatus) -> str:
    return "; ".join(kill.residue) or "a reading of the venue that shows no open order"


def _applied_text(desk: str, outcome: CommandOutcome, status: Status | None) -> str:
    in_part = " in part" if outcome.detail else ""
    of_all = f"cancels of all orders of {', '.join(outcome.symbols or ['its symbols'])}"
    what = {
        CommandKind.KILL: f"desk {desk!r} is killed; its cancels are prepared. `ais status` shows when it is verified",
        CommandKind.PAUSE: f"desk {desk!r} is paused: no new order. Resting orders and positions stay",
        CommandKind.RESUME: f"desk {desk!r} is running",
        CommandKind.CANCEL_ALL: f"desk {desk!r}: {of_all} are prepared; `ais status` shows what is open",
        CommandKind.ADD_SYMBOLS: f"desk {desk!r} has its new symbols, and stays paused until `ais resume`",
        CommandKind.DELEVERAGE: f"desk {desk!r}: the order that reduces {outcome.symbol} is done{in_part}",
    }[outcome.command]
    sends = outcome.command in (CommandKind.KILL, CommandKind.CANCEL_ALL, CommandKind.DELEVERAGE)
    if sends and status and status.mode is Mode.SHADOW:
        what = f"desk {desk!r} is in shadow: {outcome.command.value} is recorded, and nothing is sent to the venue"
    return f"{what}. {outcome.detail}" if outcome.detail else what


def _killed_text(status: Status, kill: KillStatus) -> str:
    """What was confirmed, and what an operator must not overlook."""
    if status.mode is Mode.SHADOW:
        return f"desk {status.desk!r} is killed (kill {status.kill_number}); in shadow there is nothing to cancel"
    assert kill.verified_at is not None
    killed = f"desk {status.desk!r} is killed (kill {status.kill_number}) and verified"
    confirmed = f"{kill.confirmed} of {kill.cancels} cancels confirmed, no open order at {iso(kill.verified_at)}."
    return " ".join(
        [f"{killed}: {confirmed}", _positions(status, kill), *(f"Outstanding: {text}." for text in kill.residue)]
    )


def _positions(status: Status, kill: KillStatus) -> str:
    """The positions, only from a reading after the kill was verified: an order may have filled after an earlier one."""
    if kill.flat_at is not None:
        return f"No futures position was left at {iso(kill.flat_at)}."
    seen = status.observation
    if seen is None or kill.verified_at is None or seen.observed_at < kill.verified_at:
        return "Positions stay, if there are any; the next cycle reads them: `ais status`."
    held = ", ".join(f"{p.symbol} {plain(p.quantity)}" for p in seen.positions if p.quantity)
    return f"Positions at {iso(seen.observed_at)}: {held or 'none'}."


def _other_ways(desk: str, workflow_id: str, error: GatewayError, sent: Sent, config: Mapping[str, Any]) -> str:
    """Other ways to stop trading while Temporal accepts no kill from here."""
    known = "NOT KILLED YET" if sent is Sent.NO else "NOT KNOWN WHETHER KILLED"
    where = f"--address {config.get('target_host')} --namespace {config.get('namespace') or 'default'}"
    return f"""{known}: desk {desk!r}. {error}
Trying again until Temporal accepts it; Ctrl-C gives up. Meanwhile, from wherever it can be reached:
  the API        curl -X POST -H "Authorization: Bearer $AIS_API_KEY" http://HOST:PORT/control/kill-switch
  temporal       temporal workflow cancel --workflow-id {workflow_id} {where}
  Temporal's UI  open the running {workflow_id}, Request Cancellation
  the venue      its own page: cancel all orders, close positions"""
