"""The decision log: rows that stand once, read in pages, newest first."""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import AwareDatetime, TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, Connection, FromClause, Select, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from domain.decisions import Decision, DecisionType
from domain.values import Moment, Value
from storage.cleaning import clean, clean_values
from storage.tables import decision_agents, decisions

_STORED = {column.name for column in decisions.columns}


class InvalidCursor(ValueError):
    """A cursor that no page has given out."""

    def __init__(self) -> None:
        super().__init__("the cursor is not one that a page of this log has given out")


class DecisionFilter(Value):
    """Which rows, and how many. What is None does not filter."""

    limit: int = 50
    cursor: str | None = None
    decision_type: DecisionType | None = None
    risk_passed: bool | None = None
    agent_id: str | None = None
    symbol: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    desk: str | None = None


class _Place(NamedTuple):
    """The last row of a page."""

    timestamp: datetime
    decision_id: str


def insert_decisions(connection: Connection, rows: Sequence[Decision]) -> list[Decision]:
    """Writes rows that are not there yet, and returns those. Idempotent by `decision_id`."""
    if not rows:
        return []
    by_id = {clean(row.decision_id): row for row in rows}
    statement = insert(decisions).values([clean_values(row.model_dump(include=_STORED)) for row in by_id.values()])
    statement = statement.on_conflict_do_nothing(index_elements=[decisions.c.decision_id])
    new = set(connection.scalars(statement.returning(decisions.c.decision_id)))
    written = [row for decision_id, row in by_id.items() if decision_id in new]
    _insert_agents(connection, written)
    return written


def _insert_agents(connection: Connection, rows: Sequence[Decision]) -> None:
    votes = [
        clean_values({"agent_id": agent_id, "timestamp": row.timestamp, "decision_id": row.decision_id})
        for row in rows
        for agent_id in row.agent_votes
    ]
    if votes:
        connection.execute(insert(decision_agents).values(votes).on_conflict_do_nothing())


def decision_exists(connection: Connection, decision_id: str) -> bool:
    """Whether the row is written."""
    statement = select(decisions.c.decision_id).where(decisions.c.decision_id == clean(decision_id))
    return connection.scalar(statement) is not None


def page(connection: Connection, wanted: DecisionFilter) -> tuple[list[Decision], str | None]:
    """One page, newest first, and the cursor of the next one; None on the last page."""
    # One row more than asked tells whether there is a next page.
    found = connection.execute(page_statement(wanted).limit(wanted.limit + 1)).mappings().all()
    rows = [Decision.model_validate(dict(row)) for row in found[: wanted.limit]]
    more = len(found) > wanted.limit
    return rows, _cursor(_Place(rows[-1].timestamp, rows[-1].decision_id)) if more else None


def page_statement(wanted: DecisionFilter) -> Select[Any]:
    """The query of a page without its limit."""
    source, order = _source(wanted)
    statement = select(decisions).select_from(source).where(*_conditions(wanted, order))
    return statement.order_by(order.timestamp.desc(), order.decision_id.desc())


def _source(wanted: DecisionFilter) -> tuple[FromClause, Any]:
    """What to read from, and the columns that the walk follows: those of the votes where an agent is asked for."""
    if wanted.agent_id is None:
        return decisions, decisions.c
    joined = decision_agents.join(decisions, decision_agents.c.decision_id == decisions.c.decision_id)
    return joined, decision_agents.c


def _conditions(wanted: DecisionFilter, order: Any) -> list[ColumnElement[bool]]:
    equal = {
        decisions.c.decision_type: wanted.decision_type,
        decisions.c.risk_passed: wanted.risk_passed,
        decisions.c.symbol: wanted.symbol and clean(wanted.symbol),
        decisions.c.desk: wanted.desk and clean(wanted.desk),
        decision_agents.c.agent_id: wanted.agent_id and clean(wanted.agent_id),
    }
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
    if wanted.since is not None:
        conditions.append(order.timestamp >= wanted.since)
    if wanted.until is not None:
        conditions.append(order.timestamp < wanted.until)
    if wanted.cursor is not None:
        place = _place(wanted.cursor)
        conditions.append(tuple_(order.timestamp, order.decision_id) < tuple_(place.timestamp, place.decision_id))
    return conditions


def _cursor(place: _Place) -> str:
    text = f"{place.timestamp.isoformat()}|{place.decision_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


_moment: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


def _place(cursor: str) -> _Place:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        timestamp, bar, decision_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition("|")
        place = _Place(_moment.validate_python(timestamp), decision_id)
    except (ValueError, binascii.Error, ValidationError) as error:
        raise InvalidCursor from error
    if not bar or clean(decision_id) != decision_id:
        raise InvalidCursor
    return place
