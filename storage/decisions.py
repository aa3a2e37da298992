"""The decision log: rows that stand once, read in pages, newest first."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, select
from sqlalchemy.dialects.postgresql import insert

from domain.decisions import Decision, DecisionType
from storage.cleaning import clean, clean_values
from storage.paging import Keyset, PageFilter
from storage.tables import decision_agents, decisions

_STORED = {column.name for column in decisions.columns}


class DecisionFilter(PageFilter):
    """Which rows, and how many."""

    decision_type: DecisionType | None = None
    risk_passed: bool | None = None
    agent_id: str | None = None
    desk: str | None = None


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
    statement, keyset = _walk(wanted)
    rows, cursor = keyset.read(connection, statement, wanted)
    return [Decision.model_validate(dict(row)) for row in rows], cursor


def page_statement(wanted: DecisionFilter) -> Select[Any]:
    """The query of a page without its limit."""
    statement, keyset = _walk(wanted)
    return keyset.select(statement, wanted)


def _walk(wanted: DecisionFilter) -> tuple[Select[Any], Keyset]:
    source, order = _source(wanted)
    statement = select(decisions).select_from(source).where(*_conditions(wanted))
    return statement, Keyset(order.timestamp, order.decision_id)


def _source(wanted: DecisionFilter) -> tuple[FromClause, Any]:
    """What to read from, and the columns that the walk follows: those of the votes where an agent is asked for."""
    if wanted.agent_id is None:
        return decisions, decisions.c
    joined = decision_agents.join(decisions, decision_agents.c.decision_id == decisions.c.decision_id)
    return joined, decision_agents.c


def _conditions(wanted: DecisionFilter) -> list[ColumnElement[bool]]:
    equal = {
        decisions.c.decision_type: wanted.decision_type,
        decisions.c.risk_passed: wanted.risk_passed,
        decisions.c.symbol: wanted.symbol and clean(wanted.symbol),
        decisions.c.desk: wanted.desk and clean(wanted.desk),
        decision_agents.c.agent_id: wanted.agent_id and clean(wanted.agent_id),
    }
    return [column == value for column, value in equal.items() if value is not None]
