"""Totals of accounts, and the triggers that delete those which a record's row proves wrong."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"

MOMENT = sa.DateTime(timezone=True)
RECORDS = (
    ("paper", "fills", "filled_at"),
    ("paper", "ledger", "at"),
    ("live", "fills", "filled_at"),
    ("live", "income", "at"),
)

# Whoever writes a record shares the lock, and whoever writes totals has it alone: neither misses what the other is about to
# commit. A statement after the lock sees what was committed before it.
FORGET = """
CREATE FUNCTION {schema}.forget_totals_of_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed record;
BEGIN
    FOR changed IN SELECT desk, min({moment}) AS first FROM rows GROUP BY desk ORDER BY desk LOOP
        PERFORM pg_advisory_xact_lock_shared(hashtextextended('{schema}.totals:' || changed.desk, 0));
        DELETE FROM {schema}.totals WHERE totals.desk = changed.desk AND through >= changed.first;
    END LOOP;
    RETURN NULL;
END
$$
"""
TRIGGER = """
CREATE TRIGGER forget_totals_{name} AFTER {event} ON {schema}.{table} REFERENCING {which} TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.forget_totals_of_{table}()
"""
# TRUNCATE tells no rows: nothing is known of any desk any more.
FORGET_ALL = """
CREATE FUNCTION {schema}.forget_totals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('{schema}.totals:' || desk, 0))
    FROM (SELECT DISTINCT desk FROM {schema}.totals ORDER BY desk) AS desks;
    DELETE FROM {schema}.totals;
    RETURN NULL;
END
$$
"""
TRUNCATED = """
CREATE TRIGGER forget_totals_truncate AFTER TRUNCATE ON {schema}.{table}
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.forget_totals()
"""
EVENTS = (
    ("insert", "INSERT", "NEW"),
    ("delete", "DELETE", "OLD"),
    ("before", "UPDATE", "OLD"),
    ("after", "UPDATE", "NEW"),
)


def upgrade() -> None:
    for schema in ("paper", "live"):
        op.create_table(
            "totals",
            sa.Column("desk", sa.Text, nullable=False),
            sa.Column("through", MOMENT, nullable=False),
            sa.Column("version", sa.Integer, nullable=False),
            sa.Column("start", sa.Text, nullable=False),
            sa.Column("records", sa.BigInteger, nullable=False),
            sa.Column("state", JSONB, nullable=False),
            sa.PrimaryKeyConstraint("desk", "through", name="totals_pkey"),
            schema=schema,
        )
        op.execute(FORGET_ALL.format(schema=schema))
    for schema, table, moment in RECORDS:
        op.execute(TRUNCATED.format(schema=schema, table=table))
        op.execute(FORGET.format(schema=schema, table=table, moment=moment))
        for name, event, which in EVENTS:
            op.execute(TRIGGER.format(name=name, event=event, which=which, schema=schema, table=table))


def downgrade() -> None:
    for schema, table, _ in RECORDS:
        for name in ("truncate", *(name for name, _, _ in EVENTS)):
            op.execute(f"DROP TRIGGER forget_totals_{name} ON {schema}.{table}")
        op.execute(f"DROP FUNCTION {schema}.forget_totals_of_{table}()")
    for schema in ("paper", "live"):
        op.execute(f"DROP FUNCTION {schema}.forget_totals()")
        op.drop_table("totals", schema=schema)
