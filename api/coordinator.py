"""The coordinator as this process sees it: bounded reads, and a count of commands that nobody has confirmed yet."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from api.errors import TooManyUnwritten, TooManyWaiting, Unavailable
from domain.desk.status import Outcomes, Status
from workflows.gateway import CoordinatorSilent

MAX_UNCONFIRMED = 100
# A run keeps each row of a command until the database has it, and may carry only so much.
MAX_UNWRITTEN = 2_000
ADMISSION_SECONDS = 1.0
# A read may have to wait for the query in flight to end. The gateway then reports the error itself.
_GRACE_SECONDS = 0.2


class Gateway(Protocol):
    """The part of `workflows.gateway.DeskGateway` that the API needs."""

    desk: str

    async def signal(self, name: str, payload: dict[str, Any], seconds: float = ...) -> None:
        """Records a signal."""

    async def request_cancel(self, reason: str, seconds: float = ...) -> None:
        """Requests the workflow's cancellation."""

    async def standing_cancellation(self, seconds: float) -> str | None:
        """The reason of the first cancellation of the newest run."""

    async def status(self) -> Status:
        """The status."""

    async def outcomes(self, command_ids: Iterable[str] = (), *, urgent: bool = False) -> Outcomes:
        """Status and outcomes."""

    async def open_status(self) -> str | None:
        """Temporal's status of the newest run."""


class CoordinatorClient:
    """One coordinator, behind its gateway."""

    def __init__(self, gateway: Gateway, patience_seconds: float) -> None:
        self.gateway = gateway
        self._patience = patience_seconds
        self._unconfirmed: set[str] = set()
        self._sending = 0
        self._carrying_out = 0
        self._pending = 0
        self._rows = 0
        self.covered_symbols: Sequence[str] = ()
        """The symbols that a kill of the desk covers, as the coordinator last reported; none until it has."""

    async def read(
        self, command_ids: Iterable[str] = (), seconds: float | None = None, *, urgent: bool = False
    ) -> Outcomes:
        """Status and outcomes from a query that begins after this call; raises GatewayError within `seconds`."""
        limit = self._patience + _GRACE_SECONDS if seconds is None else seconds
        # Such a query sees every signal recorded before it, so its answer confirms all commands noted so far.
        before = set(self._unconfirmed)
        try:
            async with asyncio.timeout(limit):
                found = await self.gateway.outcomes(command_ids, urgent=urgent)
        except TimeoutError:
            raise CoordinatorSilent(
                f"the coordinator of desk {self.gateway.desk!r} did not answer within {limit:.1f} s: no worker is up, "
                "or Temporal is slow; start a worker: python worker.py"
            ) from None
        self._unconfirmed -= before
        self._pending = found.status.commands_pending
        self._rows = found.status.records_waiting
        self.covered_symbols = found.status.covered_symbols
        return found

    @property
    def waiting(self) -> int:
        """The number of commands that are being sent, are unconfirmed, or are not settled by the coordinator."""
        return self._sending + len(self._unconfirmed) + self._pending

    async def admit(self) -> None:
        """Raises if too many commands or rows are waiting, after asking the coordinator whether they still are."""
        if self._refusal() is None:
            return
        with suppress(CoordinatorSilent):
            await self.read(seconds=ADMISSION_SECONDS)
        if refusal := self._refusal():
            raise refusal

    def _refusal(self) -> Unavailable | None:
        if self.waiting > MAX_UNCONFIRMED:
            return TooManyWaiting(self.waiting, MAX_UNCONFIRMED)
        return TooManyUnwritten(self._rows, MAX_UNWRITTEN) if self._rows > MAX_UNWRITTEN else None

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Counts a signal while it is being sent."""
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1

    @contextmanager
    def carrying_out(self) -> Iterator[None]:
        """Counts a client while it waits for the outcome of a command."""
        self._carrying_out += 1
        try:
            yield
        finally:
            self._carrying_out -= 1

    @property
    def is_waited_for(self) -> bool:
        """Whether any client waits for an outcome now. `waiting` also counts commands whose clients have left."""
        return self._carrying_out > 0

    def recorded(self, command_id: str) -> None:
        """Notes a command that Temporal has or may have, and that no query has seen yet."""
        self._unconfirmed.add(command_id)
