"""Carries out `ais log`: reads decisions, commands, instructions or fills from PostgreSQL, and shows them newest last.

Rows may be written late, since the coordinator keeps them while the database is down. So each poll of `--follow` reads the last
minutes again, and shows what it has not shown before. Instructions without an outcome are read again however old they are: a
venue may be away for longer.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection

import settings
from api.models import FillAnswer
from api.rows import entry, instruction, shown
from cli.moments import moment_of
from cli.refusals import Refused
from domain.desk.states import Mode
from domain.health.troubles import KnownTroubles
from domain.trading.decisions import Decision, DecisionType
from domain.trading.instructions import InstructionOutcome, InstructionRow
from domain.trading.symbols import normalise_symbol
from domain.values import iso, plain, printable
from startup import Say
from storage import books, decisions, instructions, paper
from storage.clock import server_time
from storage.database import Database, DatabaseUnavailable
from storage.decisions import DecisionFilter
from storage.desks import read_desk
from storage.instructions import InstructionFilter
from storage.paging import PageFilter
from storage.paper import StoredFill

POLL_SECONDS = 1.0
LATE = timedelta(minutes=10)
PAGE_ROWS = 1000
# Of `--limit`.
MOST_ROWS = 10_000
# Whoever names a beginning or a command expects every row of it: one that is left out may be the one that they look for.
_ALL_OF = {"since", "command_id"}
# The most instructions without an outcome that each poll reads again.
MOST_OPEN = 1000
EXPECTED = (Refused, DatabaseUnavailable)

# The kinds of rows that an option can filter.
_NARROWS = {
    "--type": ("decisions",),
    "--agent": ("decisions",),
    "--command-id": ("decisions", "commands", "instructions"),
}


class WrongOption(ValueError):
    """An option that makes no sense here; `option` is its name."""

    def __init__(self, option: str, text: str) -> None:
        super().__init__(text)
        self.option = option


class LogLine(NamedTuple):
    """A row as it is shown. `key` differs between rows, and between two outcomes of the same row."""

    key: str
    moment: datetime
    text: str
    fields: dict[str, Any]
    colour: str | None = None
    # The instruction, and whether it has no outcome yet.
    instruction_id: str | None = None
    is_open: bool = False


class NewestRows(NamedTuple):
    """The first rows that are shown, oldest first; whether this database knows the desk, and whether older rows match too."""

    lines: list[LogLine]
    is_known_desk: bool
    has_older: bool


@dataclass(frozen=True)
class LogQuery:
    """What a person asked to see."""

    desk: str
    kind: str
    limit: int
    live: bool = False
    filters: Mapping[str, Any] = field(default_factory=dict)

    def page(self, connection: Connection, **changes: Any) -> tuple[list[LogLine], str | None]:
        """One page, newest first, and the cursor of the next one."""
        wanted = {"limit": self.limit, **self.filters, **changes}
        if self.kind == "instructions":
            rows, cursor = instructions.page(connection, self.desk, InstructionFilter(**wanted))
            return [_instruction_line(row) for row in rows], cursor
        if self.kind == "fills":
            fills, cursor = _fills(connection, self.desk, self.live, PageFilter(**wanted))
            return [_fill_line(fill) for fill in fills], cursor
        found, cursor = decisions.page(connection, DecisionFilter(desk=self.desk, **wanted))
        return [_decision_line(row) for row in found], cursor

    def again(self, connection: Connection, instruction_ids: list[str]) -> list[LogLine]:
        """These instructions as they are now, the newest first."""
        if not instruction_ids:
            return []
        rows = map(instructions.as_row, instructions.read_instructions(connection, instruction_ids).values())
        return [_instruction_line(row) for row in sorted(rows, key=lambda row: row.prepared_at, reverse=True)]

    def since(self, connection: Connection, moment: datetime) -> Iterator[LogLine]:
        """Every row since a moment."""
        asked = self.filters.get("since")
        changes = {"since": max(moment, asked) if asked else moment, "limit": PAGE_ROWS}
        lines, cursor = self.page(connection, **changes)
        yield from lines
        while cursor:
            lines, cursor = self.page(connection, **changes, cursor=cursor)
            yield from lines


class LogReader:
    """Reads the rows of a query, then new ones."""

    def __init__(self, database: Database, query: LogQuery) -> None:
        self._database = database
        self._query = query
        self._seen: dict[str, datetime] = {}
        # The key of each shown instruction that has no outcome yet.
        self._open: dict[str, str] = {}

    async def newest(self) -> NewestRows:
        """The newest rows, oldest first. Raises DatabaseUnavailable or Refused."""

        def read(connection: Connection) -> tuple[list[LogLine], NewestRows]:
            newest, _ = self._query.page(connection, limit=1)
            # By the database's clock, since this machine's may be wrong.
            last = newest[0].moment if newest else server_time(connection)
            # Late rows first: a row written in between is then on the page, or in the next poll.
            late = list(self._query.since(connection, last - LATE))
            lines, cursor = self._query.page(connection)
            known = read_desk(connection, self._query.desk) is not None
            return late, NewestRows(lines[::-1], known, cursor is not None)

        late, found = await self._database.run(read)
        self._remember([*found.lines, *late])
        self._note_open(found.lines)
        return found

    async def new(self) -> list[LogLine]:
        """New rows, and instructions with a new outcome; oldest first."""

        def read(connection: Connection) -> tuple[datetime, list[LogLine]]:
            # A row from a clock that is ahead must not hide the rows after it.
            now = server_time(connection)
            since = min(max(self._seen.values(), default=now), now) - LATE
            newer = list(self._query.since(connection, since))
            return since, [*newer, *self._query.again(connection, list(self._open))]

        since, found = await self._database.run(read)
        shown = {*self._seen, *self._open.values()}
        fresh = list({line.key: line for line in found if line.key not in shown}.values())
        self._seen = {key: moment for key, moment in self._seen.items() if moment > since - LATE}
        self._remember(fresh)
        self._note_open(fresh[::-1])
        return fresh[::-1]

    def _note_open(self, shown: list[LogLine]) -> None:
        for line in shown:
            if line.instruction_id is not None:
                self._open.pop(line.instruction_id, None)
                if line.is_open:
                    self._open[line.instruction_id] = line.key
        self._open = dict(list(self._open.items())[-MOST_OPEN:])

    def _remember(self, lines: list[LogLine]) -> None:
        self._seen.update((line.key, line.moment) for line in lines)


async def _newest_rows(reader: LogReader) -> NewestRows:
    try:
        return await reader.newest()
    except DatabaseUnavailable as error:
        raise Refused(
            f"the log cannot be read: {error}. `ais status` needs no database; `ais doctor` says what is wrong"
        ) from error


async def run(query: LogQuery, show: Callable[[LogLine], None], say: Say, *, follow: bool = False) -> None:
    """Shows the rows, and with `follow` new ones until it is cancelled. Raises Refused if the first reading fails."""
    database = Database(settings.DatabaseSettings.load().url, threads=1, application_name="ais-cli")
    try:
        reader = LogReader(database, query)
        found = await _newest_rows(reader)
        _show(found.lines, show)
        if not found.lines:
            unknown = "" if found.is_known_desk else "; this database has never had a desk of that name"
            say(f"no {query.kind} of desk {query.desk!r} to show{unknown}")
        elif found.has_older and query.filters.keys() & _ALL_OF:
            say(f"these are the newest {query.limit} only; there are older ones: {_how_to_see_more(query.limit)}")
        if follow:
            await _follow(reader, show, say)
    finally:
        database.close()


def _how_to_see_more(limit: int) -> str:
    return f"add --limit {min(10 * limit, MOST_ROWS)}" if limit < MOST_ROWS else "--until shows those before a time"


async def _follow(reader: LogReader, show: Callable[[LogLine], None], say: Say) -> None:
    troubles = KnownTroubles()
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            lines = await reader.new()
        except EXPECTED as error:
            if troubles.begin():
                say(f"the log cannot be read: {error}; trying again. Newer rows may exist")
        else:
            if troubles.end():
                say("the log can be read again")
            _show(lines, show)


def _show(lines: list[LogLine], show: Callable[[LogLine], None]) -> None:
    for line in lines:
        show(line)


def as_json(line: LogLine) -> str:
    """One JSON object in one line. json.dumps escapes control characters."""
    return json.dumps(line.fields)


# --- what was asked -------------------------------------------------------------------------------------------------


def query_of(kind: str, limit: int, options: Mapping[str, str | None]) -> LogQuery:
    """The query that the options describe. Raises WrongOption."""
    given = {name: text.strip() for name, text in options.items() if text}
    for name in given.keys() & _NARROWS.keys():
        if kind not in _NARROWS[name]:
            raise WrongOption(name, f"it does not apply to --kind {kind}; use it with --kind {_NARROWS[name][0]}.")
    filters: dict[str, Any] = {"decision_type": DecisionType.CONTROL} if kind == "commands" else {}
    for name, text in given.items():
        meaning, read = _OPTIONS[name]
        try:
            filters[meaning] = read(text)
        except ValueError as error:
            raise WrongOption(name, f"{error}.") from None
    desk = settings.DeskSettings.load()
    return LogQuery(desk.desk, kind, limit, desk.mode == "live", filters)


def _type_of(text: str) -> DecisionType:
    try:
        return DecisionType(text)
    except ValueError:
        raise ValueError(f"{text!r} is not one of {', '.join(DecisionType)}") from None


_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "--since": ("since", moment_of),
    "--until": ("until", moment_of),
    "--type": ("decision_type", _type_of),
    "--symbol": ("symbol", normalise_symbol),
    "--agent": ("agent_id", str),
    "--command-id": ("command_id", str),
}


# --- how a row is shown ---------------------------------------------------------------------------------------------


def _fills(connection: Connection, desk: str, live: bool, wanted: PageFilter) -> tuple[list[StoredFill], str | None]:
    # The desk may have moved to another mode, and its account with it, since somebody set AIS_MODE here.
    row = read_desk(connection, desk)
    if not (live if row is None else row.mode is Mode.LIVE):
        return paper.fills_page(connection, desk, wanted)
    found = books.find_books(connection, desk)
    if found is None or found.state.opening is None:
        # An empty answer would claim that nothing was traded.
        raise Refused(f"the books of desk {desk!r} are not read yet, so its fills are not known; see docs/venue.md")
    return books.fills_page(connection, desk, wanted)


def _decision_line(row: Decision) -> LogLine:
    refused = f" [refused: {', '.join(row.risk_reasons)}]" if row.risk_passed is False else ""
    words = row.decision_type.value.replace("_", " ")
    text = printable(f"{iso(row.timestamp)}  {words:<12}  {row.summary}{refused}")
    colour = {DecisionType.CONTROL: "cyan", DecisionType.RISK_ACTION: "yellow"}.get(row.decision_type)
    return LogLine(row.decision_id, row.timestamp, text, entry(row), colour)


def _instruction_line(row: InstructionRow) -> LogLine:
    what, order = f"{row.tool.value} {row.symbol}", row.order
    if order is not None:
        price = f" at {plain(order.price)}" if order.price else ""
        what += f" {order.side.value} {plain(order.quantity)}{price}{', reduce only' if order.reduce_only else ''}"
    detail = f": {row.detail}" if row.detail else ""
    text = printable(f"{iso(row.prepared_at)}  {row.outcome.value:<9}  {what} (command {row.command_id}){detail}")
    bad = row.outcome in (InstructionOutcome.UNKNOWN, InstructionOutcome.FAILED)
    key = f"{row.instruction_id} {row.outcome.value}"
    is_open = row.outcome in (InstructionOutcome.PREPARED, InstructionOutcome.UNKNOWN)
    colour = "red" if bad else None
    return LogLine(key, row.prepared_at, text, instruction(row), colour, row.instruction_id, is_open)


def _fill_line(fill: StoredFill) -> LogLine:
    what = f"{fill.side.value} {plain(fill.quantity)} {fill.symbol} ({fill.market.value}) at {plain(fill.price)}"
    money = f"fee {plain(fill.fee)}, realised profit {plain(fill.realised_profit)}"
    text = printable(f"{iso(fill.filled_at)}  {what}; {money} (order {fill.order_id})")
    (fields,) = shown([fill], FillAnswer)
    return LogLine(fill.fill_id, fill.filled_at, text, fields)
