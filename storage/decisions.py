"""The decision log. Each row is written once; pages show the newest first."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert

from domain.trading.decisions import Decision, DecisionType
from storage.cleaning import clean, clean_values
from storage.paging import Keyset, PageFilter
from storage.tables import HAS_SYMBOL, HAS_VOTES, decision_group, decision_voters, decisions, installation

_STORED = {column.name for column in decisions.columns}
_ORDER = Keyset(decisions.c.timestamp, decisions.c.decision_id)
SHOWN = (
    "decision_id", "timestamp", "decision_type", "summary", "agent_votes", "selected_signal_id", "selected_order_id",
    "risk_passed", "risk_reasons",
)  # fmt: skip
"""The keys of a row in an answer."""
_FILTERS = ("desk", "decision_type", "risk_passed", "symbol", "agent_id", "command_id")
_TEXTS = ("desk", "symbol", "agent_id", "command_id")
_NARROWING = frozenset({"decision_type", "risk_passed", "symbol", "agent_id"})
# Rows are given as parameters: a statement that contains them, as with `values([...])`, is compiled again each time.
_INSERT = (
    insert(decisions)
    .on_conflict_do_nothing(index_elements=[decisions.c.decision_id])
    .returning(decisions.c.decision_id)
)
# If an agent voted with more combinations of other agents than this, its rows are searched for among all.
MAX_GROUPS = 200


class DecisionFilter(PageFilter):
    """The wanted rows, and how many. Pages without a desk have no index."""

    decision_type: DecisionType | None = None
    risk_passed: bool | None = None
    agent_id: str | None = None
    desk: str | None = None
    command_id: str | None = None


def insert_decisions(connection: Connection, rows: Sequence[Decision], *, is_news: bool = True) -> list[Decision]:
    """Writes the rows that are not there yet, and returns those. Idempotent by `decision_id`.

    With `is_news=False` rows get no number, so that they cause no notification: people know of that kill already.
    """
    if not rows:
        return []
    by_id = {clean(row.decision_id): row for row in rows}
    number = {} if is_news else {"written": None}
    values = [clean_values(row.model_dump(include=_STORED)) | number for row in by_id.values()]
    new = set(connection.scalars(_INSERT, values))
    return [row for decision_id, row in by_id.items() if decision_id in new]


def read_decisions(connection: Connection, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The rows of these ids, as they are stored."""
    statement = select(decisions).where(decisions.c.decision_id.in_(map(clean, ids)))
    return {row["decision_id"]: dict(row) for row in connection.execute(statement).mappings()}


def decision_exists(connection: Connection, decision_id: str) -> bool:
    """Whether the row is written."""
    statement = select(decisions.c.decision_id).where(decisions.c.decision_id == clean(decision_id))
    return connection.scalar(statement) is not None


def page(connection: Connection, wanted: DecisionFilter) -> tuple[list[Decision], str | None]:
    """One page, newest first, and the cursor of the next one; None on the last page."""
    found = connection.execute(*page_statement(connection, wanted)).mappings().all()
    rows, cursor = _ORDER.cut(found, wanted)
    return [Decision.model_validate(dict(row)) for row in rows], cursor


class PageText(NamedTuple):
    """A page as the text of a JSON array, and the database's id; None if the page is empty."""

    text: str
    cursor: str | None
    database_id: str | None


def page_text(connection: Connection, wanted: DecisionFilter) -> PageText:
    """`page` as text, which PostgreSQL makes: to build objects of the rows and text of those costs more than all the rest."""
    found = connection.execute(*page_statement(connection, wanted, as_text=True)).mappings().all()
    rows, cursor = _ORDER.cut(found, wanted)
    database_id = rows[0]["database_id"] if rows else None
    return PageText(f"[{','.join(row['shown'] for row in rows)}]", cursor, str(database_id) if database_id else None)


def page_statement(
    connection: Connection, wanted: DecisionFilter, *, as_text: bool = False
) -> tuple[Select[Any], dict[str, Any]]:
    """The query of a page and one row more, with its parameters."""
    values = {name: getattr(wanted, name) for name in _FILTERS if getattr(wanted, name) is not None}
    values |= {name: clean(values[name]) for name in _TEXTS if name in values}
    bounded = _ORDER.values(wanted)
    names, bounds = frozenset(values), frozenset(bounded)
    values |= bounded
    if "desk" not in names or "command_id" in names or not names & _NARROWING:
        return _rows(names, bounds, as_text=as_text), values
    if "agent_id" in names:
        numbers = connection.scalars(_groups_of_agent(names), values).all()
        if len(numbers) <= MAX_GROUPS:
            return _newest(names, bounds, by_agents=True, as_text=as_text), values | {"numbers": numbers}
    verdicts = [True, False, None] if wanted.risk_passed is None else [wanted.risk_passed]
    kinds = list(product([wanted.decision_type] if wanted.decision_type else DecisionType, verdicts))
    values |= {"types": [kind for kind, _ in kinds], "verdicts": [verdict for _, verdict in kinds]}
    return _newest(names, bounds, by_agents=False, as_text=as_text), values


# --- statements: made once for each set of filters, since SQLAlchemy needs longer to make one than PostgreSQL for its rows ----


@cache
def _rows(names: frozenset[str], bounds: frozenset[str], *, as_text: bool) -> Select[Any]:
    """The rows of a desk or of a command."""
    return _ORDER.walk(select(*_columns(decisions, as_text=as_text)).where(*_asked(decisions.c, names)), bounds)


@cache
def _groups_of_agent(names: frozenset[str]) -> Select[Any]:
    """The numbers of all groups in which the agent has voted; at most one more than MAX_GROUPS."""
    v = decision_voters.c
    groups = select(v.decision_group)
    if "symbol" in names:
        symbol = bindparam("symbol", type_=Text)
        groups = select(func.decision_group(v.desk, v.decision_type, v.risk_passed, symbol, v.agents))
    groups = groups.where(*_equal(v, names & {"desk", "decision_type", "risk_passed"}))
    return groups.where(v.agents.has_key(bindparam("agent_id", type_=Text))).limit(MAX_GROUPS + 1)


@cache
def _newest(names: frozenset[str], bounds: frozenset[str], *, by_agents: bool, as_text: bool) -> Select[Any]:
    """The newest rows of these groups: each group's newest along an index, and of all of those the newest.

    However rare a combination of filters is, no other row is read. The filters are applied once more, since two groups may have
    the same number.
    """
    of_symbol = "symbol" in names
    groups = _numbers() if by_agents else _groups(of_symbol=of_symbol)
    rows = select(decisions).where(decision_group(symbol=of_symbol, agents=by_agents) == groups.c.number)
    # The same conditions as in the indexes.
    rows = rows.where(*([HAS_SYMBOL] if of_symbol else []), *([HAS_VOTES] if by_agents else _voted(decisions.c, names)))
    walk = _ORDER.walk(rows, bounds).lateral()
    found = (
        select(*_columns(walk, as_text=as_text)).select_from(groups.join(walk, true())).where(*_asked(walk.c, names))
    )
    return found.order_by(walk.c.timestamp.desc(), walk.c.decision_id.desc()).limit(bindparam("rows", type_=Integer))


def _numbers() -> FromClause:
    return func.unnest(bindparam("numbers", type_=ARRAY(BigInteger))).table_valued("number").render_derived()


def _groups(*, of_symbol: bool) -> FromClause:
    """The numbers of all possible groups: each type with each verdict."""
    types, verdicts = bindparam("types", type_=ARRAY(Text)), bindparam("verdicts", type_=ARRAY(Boolean))
    k = func.unnest(types, verdicts).table_valued("decision_type", "risk_passed").render_derived()
    desk, symbol = bindparam("desk", type_=Text), bindparam("symbol", type_=Text) if of_symbol else null()
    number = func.decision_group(desk, k.c.decision_type, k.c.risk_passed, symbol, null())
    return select(number.label("number")).select_from(k).subquery()


def _columns(rows: FromClause, *, as_text: bool) -> list[ColumnElement[Any]]:
    """All columns; or, as text, the answer's keys as JSON and the columns that paging needs."""
    if not as_text:
        return list(rows.c)
    at = func.timezone("UTC", rows.c.timestamp)
    # In the format of Python: no fraction if it is zero.
    fraction = case((func.date_trunc("second", at) == at, ""), else_=func.to_char(at, ".US"))
    moment = func.to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS') + fraction + "+00:00"
    pairs = [part for name in SHOWN for part in (literal(name), moment if name == "timestamp" else rows.c[name])]
    shown = cast(func.json_build_object(*pairs), Text).label("shown")
    return [
        rows.c.timestamp,
        rows.c.decision_id,
        shown,
        select(installation.c.database_id).scalar_subquery().label("database_id"),
    ]


def _asked(columns: Any, names: frozenset[str]) -> list[ColumnElement[bool]]:
    return [*_equal(columns, names - {"agent_id"}), *_voted(columns, names)]


def _voted(columns: Any, names: frozenset[str]) -> list[ColumnElement[bool]]:
    return [columns.agent_votes.has_key(bindparam("agent_id", type_=Text))] if "agent_id" in names else []


def _equal(columns: Any, names: frozenset[str]) -> list[ColumnElement[bool]]:
    return [columns[name] == bindparam(name, type_=columns[name].type) for name in sorted(names)]
