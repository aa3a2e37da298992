"""Carries out `ais audit rebuild`: restores rows that the database lost from the chain and from Temporal's histories.

The chain comes first if it is whole, since its own hashes prove it. Temporal also knows what the chain has lost, and how often a
cancel was tried.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine
from temporalio.client import Client

from cli.audit import Line
from cli.audit_chain import Ticker, fault_line
from cli.connecting import connect_lazily
from domain.audit import NO_DESK, FaultKind
from domain.values import iso, printable
from storage import migrate
from storage.audit import rebuilding, verifying
from storage.audit.rebuilding import ROWS_A_BATCH, Rebuilding, RememberedRow
from storage.audit.verifying import FaultCount, Verification
from storage.database import WrongDatabase
from storage.installation import read_id
from workflows import recorded
from workflows.gateway import PAUSED, RUNNING, DeskGateway
from workflows.recorded import ListedRun, RecordedRows, UnreadableRows

# How many missing and how many differing rows are named for each desk. The chain names every row that was put back.
MOST_NAMED = 20
# Faults of the tables; all others are faults of the chain itself.
_OF_TABLES = frozenset({FaultKind.MISSING, FaultKind.EXTRA, FaultKind.CHANGED})


class AskedRebuild(NamedTuple):
    """Which desk to rebuild (None: all), and whether to write rows."""

    desk: str | None = None
    writes: bool = False


async def rebuilt(url: str, asked: AskedRebuild, say: Callable[[str], None]) -> AsyncIterator[Line]:
    """The lines to print. Raises if it cannot be checked; rows reported as put back until then stay."""
    client, ticker = await connect_lazily(), Ticker(say)
    # A lazy client's first connect has no limit of its own.
    await DeskGateway(client, "any").open_status()
    with migrate.connections(url, migrate.UPGRADE_SECONDS) as engine, engine.connect() as connection:
        rebuild, total = Rebuilding(connection, writes=asked.writes), 0
        mine, wanted = await _desks(engine, client, asked.desk)
        for desk in wanted:
            of_desk = DeskRebuild(desk, engine, client, rebuild, ticker)
            if asked.desk is None and desk not in mine and await of_desk.another_database():
                continue  # A desk of this Temporal that was never in this database.
            async for line in of_desk.lines():
                yield line
            total += of_desk.missing.total()
    yield _result_line(total, writes=asked.writes)


def _result_line(total: int, *, writes: bool) -> Line:
    if not total:
        return Line("Nothing to put back.")
    if writes:
        return Line(f"{total:,} rows were put back.")
    return Line(f"{total:,} rows can be put back: `ais audit rebuild --yes` does so.", agrees=False)


async def _desks(engine: Engine, client: Client, asked: str | None) -> tuple[set[str], list[str]]:
    """The desks of the database, and those to rebuild: `asked`, or all that the database or Temporal knows."""
    with verifying.snapshot(engine) as connection:
        mine = {*verifying.desks_of(connection)} - {NO_DESK}
    known = mine | {*await recorded.listed_desks(client)}
    if asked is not None and asked not in known:
        raise LookupError(f"neither the database nor Temporal knows desk {asked!r}")
    return mine, sorted(known) if asked is None else [asked]


class DeskRebuild:
    """Rebuilds one desk: finds what is missing, where it is recorded, and what cannot be reached."""

    def __init__(self, desk: str, engine: Engine, client: Client, rebuild: Rebuilding, ticker: Ticker) -> None:
        self._desk = desk
        self._engine = engine
        self._client = client
        self._rebuild = rebuild
        self._ticker = ticker
        # Counts by the place where the rows were found.
        self.missing = Counter[str]()
        self._differing = 0
        self._looked_at = 0
        # The first body or run that cannot be read, for each kind of problem.
        self._unreached: dict[str, str] = {}
        self._unreached_times = Counter[str]()

    async def lines(self) -> AsyncIterator[Line]:
        """The findings, in the order of the search."""
        if why := await self.another_database():
            raise WrongDatabase(why)
        runs = await recorded.listed_runs(self._client, self._desk)
        # One snapshot: the chain is used exactly as it was checked.
        with verifying.snapshot(self._engine) as snapshot:
            faults = self._faults(snapshot)
            whole = all(each.first.kind in _OF_TABLES for each in faults)
            if not whole:
                yield self._line("the chain is broken, so only Temporal's histories are searched", agrees=False)
            for line in self._of_chain(snapshot, prepared=False) if whole else ():
                yield line
            async for line in self._of_histories(runs):
                yield line
            for line in self._of_chain(snapshot, prepared=True) if whole else ():
                yield line
        for line in self._end(faults, runs[-1].started_at if runs else None):
            yield line

    async def another_database(self) -> str | None:
        """Why the desk's rows do not belong in this database, or None. The newest written rows tell which one is the desk's."""
        with self._engine.connect() as connection:
            mine = read_id(connection)
        runs = await recorded.listed_runs(self._client, self._desk)
        async with aclosing(recorded.recorded(self._client, self._desk, runs)) as found:
            async for each in found:
                if isinstance(each, RecordedRows) and each.written:
                    is_mine = each.database_id in (None, mine)
                    return (
                        None
                        if is_mine
                        else f"desk {self._desk!r} writes to database {each.database_id}, but this is database {mine}"
                    )
        return None

    def _faults(self, snapshot: Connection) -> list[FaultCount]:
        found = Verification()
        verifying.verify_desk(snapshot, self._desk, None, found, self._ticker.tell)
        return found.faults

    def _of_chain(self, snapshot: Connection, *, prepared: bool) -> Iterator[Line]:
        found: list[RememberedRow] = []
        for row in rebuilding.remembered_by_chain(snapshot, self._desk, prepared=prepared):
            if row is None:
                self._cannot_reach("rows of the chain that this version cannot read", "")
            else:
                found.append(row)
            if len(found) >= ROWS_A_BATCH:
                yield from self._take(found)
                found = []
        yield from self._take(found)

    async def _of_histories(self, runs: list[ListedRun]) -> AsyncIterator[Line]:
        is_open = await DeskGateway(self._client, self._desk).open_status() in (RUNNING, PAUSED)
        found: list[RememberedRow] = []
        async for each in recorded.recorded(self._client, self._desk, runs):
            if isinstance(each, UnreadableRows):
                where = f"run {each.run_id}, event {each.event_id}: {each.why}"
                self._cannot_reach("rows of a payload that cannot be decoded", where)
            elif not isinstance(each, RecordedRows):
                self._cannot_reach("runs past retention", f"run {each.run_id}")
            elif each.are_settled(is_open=is_open):
                source = {"run": each.run_id, "event": each.event_id}
                found += [RememberedRow(row, source) for row in each.batch.decisions]
                found += [RememberedRow(row, source) for row in each.batch.instructions]
            if len(found) >= ROWS_A_BATCH:
                for line in self._take(found):
                    yield line
                found = []
        for line in self._take(found):
            yield line

    def _take(self, found: list[RememberedRow]) -> Iterator[Line]:
        if not found:
            return
        compared = self._rebuild.take(found)
        self._looked_at += len(found)
        self._ticker.tell(self._looked_at)
        for row in compared.missing:
            if self.missing.total() < MOST_NAMED:
                done = "put back" if self._rebuild.writes else "missing"
                yield self._line(f"{done}: {row.name}, from {_source(row)}", agrees=self._rebuild.writes)
            self.missing["the chain" if "chain" in row.source else "Temporal's histories"] += 1
        for row, columns in compared.differing:
            self._differing += 1
            if self._differing <= MOST_NAMED:
                what = f"DIFFERS: {row.name} in the database and {_source(row)} differ in {', '.join(columns)}"
                yield self._line(what, agrees=False)

    def _end(self, faults: list[FaultCount], oldest: datetime | None) -> Iterator[Line]:
        if self._differing > MOST_NAMED:
            yield self._line(f"{self._differing:,} rows differ; none of them was changed", agrees=False)
        for what, first in self._unreached.items():
            yield self._line(
                f"not reached: {self._unreached_times[what]:,} {what}{first and f'; the first is {first}'}"
            )
        reach = (
            f"reach back to {iso(oldest)}; only the chain knows what came before"
            if oldest
            else "are gone, or never existed"
        )
        yield self._line(f"Temporal's histories {reach}")
        if (left := self._rebuild.left(self._desk)).rows:
            what = (
                f"{left.rows:,} rows that the chain names are missing and cannot be put back; the first is {left.first}"
            )
            yield self._line(what, agrees=False)
        if self._rebuild.writes:
            yield from self._still_wrong()
        else:
            yield from (fault_line(each) for each in faults if each.first.kind is not FaultKind.MISSING)
        parts = [f"{count:,} from {source}" for source, count in self.missing.items()]
        done = "put back" if self._rebuild.writes else "missing"
        yield self._line(f"{done}: {', '.join(parts) or 'nothing'}", agrees=self._rebuild.writes or not parts)

    def _still_wrong(self) -> Iterator[Line]:
        """What `ais audit verify` finds after the rebuild."""
        self._rebuild.chain_the_rest(self._desk)
        with verifying.snapshot(self._engine) as snapshot:
            yield from map(fault_line, self._faults(snapshot))

    def _cannot_reach(self, what: str, first: str) -> None:
        self._unreached.setdefault(what, first)
        self._unreached_times[what] += 1

    def _line(self, text: str, *, agrees: bool = True) -> Line:
        return Line(printable(f"{self._desk}: {text}."), agrees)


def _source(row: RememberedRow) -> str:
    if "chain" in row.source:
        return f"row {row.source['chain']:,} of the chain"
    return f"event {row.source['event']} of run {row.source['run']}"
