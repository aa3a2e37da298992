"""Carries out `ais audit verify`, `checkpoint` and `accept`, and words the findings."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cli.actor import actor
from cli.audit import Line
from domain.audit import NO_DESK
from domain.values import printable
from storage import migrate
from storage.audit import checkpoints, verifying, watching
from storage.audit.checkpoints import Checkpoint
from storage.audit.verifying import AuditedDesk, FaultCount, Verification
from storage.installation import read_id

PROGRESS_SECONDS = 2.0


class Asked(NamedTuple):
    """What to verify: which desk, from when on, and against which signed checkpoint."""

    desk: str | None = None
    since: datetime | None = None
    signed: Checkpoint | None = None


def verified(url: str, asked: Asked, say: Callable[[str], None]) -> Iterator[Line]:
    """The lines to print; the last says whether the chain is whole. Raises if it cannot be checked."""
    desk, signed = asked.desk, asked.signed
    found, ticker = Verification(), Ticker(say)
    with migrate.connections(url, migrate.UPGRADE_SECONDS) as engine, verifying.snapshot(engine) as connection:
        if signed and signed.database_id != (found_id := read_id(connection)):
            raise checkpoints.NotSigned(
                f"the checkpoint belongs to database {signed.database_id}, but this is database {found_id}"
            )
        known = sorted({*verifying.desks_of(connection), *(signed.chains if signed else ())})
        if desk is not None and desk not in known:
            raise LookupError(f"desk {desk!r} has no chain; the database has {', '.join(known) or 'none'}")
        for each in known if desk is None else [desk]:
            verifying.verify_desk(connection, each, asked.since, found, ticker.tell)
            found.note(checkpoints.compare(connection, each, signed) if signed else ())
            yield Line(_of_desk(found.desks[-1]))
    yield from map(fault_line, found.faults)
    kinds = len(found.faults)
    yield Line(f"{found.rows:,} rows checked: {'the chain is whole' if not kinds else 'BROKEN'}.", agrees=not kinds)


def made(url: str, key_file: str) -> str:
    """Makes a checkpoint and returns its text."""
    key = checkpoints.read_key(Path(key_file))
    with migrate.connections(url, migrate.CHECK_SECONDS) as engine, engine.begin() as connection:
        return checkpoints.make(connection, key).document


def accepted(url: str, desk: str, reason: str) -> str:
    """Accepts a fault and returns the result in words. LookupError if there is nothing to accept, or it cannot be done now."""
    with migrate.connections(url, migrate.CHECK_SECONDS) as engine, engine.begin() as connection:
        if desk not in {each.fault.desk for each in watching.faults(connection)}:
            raise LookupError(
                f"the workers have found no fault in the chain of {desk!r}; to check it now: `ais audit verify`"
            )
        seq = watching.accept(connection, desk, actor(), reason)
        if seq is None:
            raise LookupError(
                "nothing was accepted: the chain cannot be written now; try again, or see docs/runbook.md, The audit chain"
            )
    return f"Accepted in row {seq:,} of {desk}. The workers verify from there on; `ais audit verify` still reports the fault."


def read_checkpoint(file: Path, public_key: str | None, key_file: str | None) -> Checkpoint:
    """Reads a checkpoint from a file and checks its signature: by `public_key`, or else by that of AIS_AUDIT_KEY."""
    if public_key is None and key_file is None:
        raise checkpoints.NotSigned("a checkpoint needs its public key: give --public-key, or set AIS_AUDIT_KEY")
    expected = public_key or checkpoints.public_key_of(checkpoints.read_key(Path(str(key_file))))
    return checkpoints.read(file.read_text(), expected)


class Ticker:
    """Reports progress every two seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._next = time.monotonic() + PROGRESS_SECONDS

    def tell(self, rows: int) -> None:
        """Called after each batch of rows."""
        if (now := time.monotonic()) >= self._next:
            self._say(f"{rows:,} rows so far …")
            self._next = now + PROGRESS_SECONDS


def _of_desk(desk: AuditedDesk) -> str:
    parts = [f"{desk.rows:,} rows, the last is {desk.last:,}"]
    if desk.desk == NO_DESK:
        parts.append("keys of the API, which belong to no desk")
    if desk.older:
        parts.append(f"{desk.older:,} rows of its log are older than the chain and cannot be proved")
    if desk.waiting:
        parts.append(f"{desk.waiting:,} entries are waiting to be chained")
    return printable(f"{desk.desk}: {'; '.join(parts)}.")


def fault_line(found: FaultCount) -> Line:
    """The first fault of a kind, in words."""
    fault = found.first
    where = "not in the chain" if fault.seq is None else f"row {fault.seq:,}"
    more = f" ({found.times:,} of this kind)" if found.times > 1 else ""
    return Line(printable(f"{fault.desk}: {fault.kind.value.upper()}: {where}: {fault.what}{more}"), agrees=False)
