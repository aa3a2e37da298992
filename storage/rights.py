"""The rights of the role that worker and API run as. `ais migrate --grant` grants exactly these; doctor and health check them.

The audit chain is worth something only with two roles: one owns the tables and migrates, the other runs worker and API. Somebody
who takes over a process can then write what AIS writes, but neither change nor remove a row of the chain.
"""

from typing import NamedTuple

from sqlalchemy import Connection, text

from storage.tables import metadata

S, SI, SIU, SID, SIUD = (
    ("SELECT",),
    ("SELECT", "INSERT"),
    ("SELECT", "INSERT", "UPDATE"),
    ("SELECT", "INSERT", "DELETE"),
    ("SELECT", "INSERT", "UPDATE", "DELETE"),
)
RIGHTS: dict[str, tuple[str, ...]] = {
    "alembic_version": S,
    # The function `audit_append` writes these, with its owner's rights.
    "audit": S, "audit_heads": S, "audit_waiting": S,
    # Written once.
    "installation": SI, "decisions": SI, "decision_voters": SI, "audit_checkpoints": SI, "equity": SI, "paper.fills": SI,
    "paper.ledger": SI,
    "instructions": SIU, "desks": SIU, "kills": SIU, "keys": SIU, "equity_hours": SIU, "audit_watch": SIU, "audit_tables": SIU,
    "notice_channels": SIU, "notice_desks": SIU, "paper.accounts": SIU, "paper.clocks": SIU, "paper.orders": SIU,
    "paper.positions": SIU, "live.books": SIU, "live.fills": SIU, "live.income": SIU,
    # A trigger forgets totals when a record is written.
    "paper.totals": SID, "live.totals": SID,
    "claims": SIUD, "notices": SIUD, "audit_unproved": SIUD,
}  # fmt: skip
SEQUENCES = ("decisions_written",)
FUNCTIONS = ("audit_append", "decision_group", "voting_agents")
"""Functions that our statements call. Functions that only triggers call need no right."""
PROOF = ("audit", "audit_heads", "audit_waiting")
_CHANGES = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")

_WANTED = """
WITH wanted AS (
    SELECT coalesce(CAST(:role AS name), current_user) AS role,
        coalesce(nullif(schema, ''), current_schema()) AS schema, name, needed
    FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[]), CAST(:needed AS text[])) AS w (schema, name, needed))
SELECT needed || ' on ' || quote_ident(schema) || '.' || quote_ident(name) FROM wanted
JOIN pg_namespace AS n ON n.nspname = schema JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = name
WHERE CASE needed WHEN 'USAGE' THEN NOT has_sequence_privilege(role, c.oid, needed)
    ELSE NOT has_table_privilege(role, c.oid, needed) END
UNION ALL SELECT DISTINCT 'USAGE on schema ' || quote_ident(schema) FROM wanted JOIN pg_namespace AS n ON n.nspname = schema
WHERE NOT has_schema_privilege(role, n.oid, 'USAGE')
UNION ALL SELECT 'EXECUTE on function ' || p.oid::regprocedure FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
CROSS JOIN (SELECT coalesce(CAST(:role AS name), current_user) AS role) AS r
WHERE n.nspname = current_schema() AND p.proname = ANY(:functions) AND NOT has_function_privilege(role, p.oid, 'EXECUTE')
"""
_MAY_CHANGE = """
SELECT coalesce(bool_or(has_table_privilege(coalesce(CAST(:role AS name), current_user), c.oid, needed)), false)
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace CROSS JOIN unnest(CAST(:needed AS text[])) AS needed
WHERE n.nspname = current_schema() AND c.relname = ANY(:names)
"""
_GRANTED = """
SELECT format('%I.%I', n.nspname, c.relname), n.nspname = current_schema() AS here, c.relname, n.nspname FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN (current_schema(), 'paper', 'live') AND c.relkind IN ('r', 'p', 'v') AND pg_has_role(c.relowner, 'USAGE')
"""
_FUNCTIONS = """
SELECT p.oid::regprocedure::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = current_schema() AND p.proname = ANY(:functions)
"""


class NotGranted(Exception):
    """The role cannot be given its rights; the text says why."""


class _Grantee(NamedTuple):
    name: str
    quoted: str


def missing(connection: Connection, role: str | None = None) -> list[str]:
    """The rights that a role, or this connection's role, lacks: `INSERT on public.decisions`. Missing tables do not count."""
    if connection.scalar(text("SELECT current_schema()")) is None:
        return ["USAGE on schema public"]
    # A name may have a schema before its dot.
    wanted = [(*table.rpartition(".")[::2], right) for table, rights in RIGHTS.items() for right in rights]
    wanted += [("", sequence, "USAGE") for sequence in SEQUENCES]
    schemas, names, needed = (list(column) for column in zip(*wanted, strict=True))
    values = {"schemas": schemas, "names": names, "needed": needed, "functions": list(FUNCTIONS), "role": role}
    return sorted(connection.scalars(text(_WANTED), values))


def may_change_the_chain(connection: Connection, role: str | None = None) -> bool:
    """Whether a role, or this connection's role, could write, change or remove rows of the chain without `audit_append`."""
    return bool(connection.scalar(text(_MAY_CHANGE), {"names": list(PROOF), "needed": list(_CHANGES), "role": role}))


def grant(connection: Connection, role: str) -> None:
    """Gives the role exactly these rights on what this connection's role owns, and takes away its other rights there. All in one
    transaction, so that running processes never lack one. It may be repeated, and has to be after later migrations.
    """
    grantee = _grantee(connection, role)
    schema = str(connection.scalar(text("SELECT quote_ident(current_schema())")))
    for each in (schema, *sorted({table.schema for table in metadata.tables.values() if table.schema})):
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {each} TO {grantee.quoted}")
    for quoted, here, name, space in connection.execute(text(_GRANTED)).all():
        connection.exec_driver_sql(f"REVOKE ALL ON {quoted} FROM {grantee.quoted}")
        if rights := RIGHTS.get(name if here else f"{space}.{name}"):
            connection.exec_driver_sql(f"GRANT {', '.join(rights)} ON {quoted} TO {grantee.quoted}")
    for sequence in SEQUENCES:
        connection.exec_driver_sql(f"GRANT USAGE ON SEQUENCE {schema}.{sequence} TO {grantee.quoted}")
    for function in connection.scalars(text(_FUNCTIONS), {"functions": list(FUNCTIONS)}).all():
        connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {function} TO {grantee.quoted}")
    _check(connection, grantee)


def _grantee(connection: Connection, role: str) -> _Grantee:
    found = connection.execute(
        text(
            "SELECT quote_ident(rolname) AS quoted, rolsuper, pg_has_role(rolname, current_user, 'MEMBER') AS is_owner "
            "FROM pg_roles WHERE rolname = :role"
        ),
        {"role": role},
    ).one_or_none()
    if found is None:
        raise NotGranted(f"there is no role {role!r}: CREATE ROLE {role} LOGIN PASSWORD '…' makes it")
    if found.rolsuper or found.is_owner:
        raise NotGranted(
            f"the role {role!r} is a superuser, owns the tables, or is a member of their owner: "
            "give worker and API a different role"
        )
    return _Grantee(role, found.quoted)


def _check(connection: Connection, grantee: _Grantee) -> None:
    """Raises NotGranted if the role now has too few rights or too many. Rights by other ways, such as a grant to PUBLIC, are not
    taken away here. It asks about the role instead of acting as it, which only a superuser may."""
    lacking, too_much = missing(connection, grantee.name), may_change_the_chain(connection, grantee.name)
    if lacking:
        raise NotGranted(
            f"the role {grantee.name!r} lacks {', '.join(lacking[:8])}: do these tables belong to another role?"
        )
    if too_much:
        raise NotGranted(
            f"the role {grantee.name!r} can change the audit chain through a grant to PUBLIC, or to a role that it is a member of"
        )
