"""The audit chain, and the one function that writes it.

What the function may never do is wait: a kill's latch is written by it too. Where somebody else appends at this moment, or
where the chain cannot be written at all, the entries go to `audit_waiting` in the same transaction, and the next append chains
them first.
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0013"
down_revision = "0012"

MOMENT = sa.DateTime(timezone=True)
IDENTIFIER = sa.Text(collation="C")

# Each part with its length before it, so that no two rows are one text.
PART = "octet_length(convert_to({part}, 'UTF8')) || ':' || {part}"
MOMENT_TEXT = """to_char({at} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
# The lock is tried and never waited for. Whoever has it sees all that those before it have committed. Its owner's rights, so that
# the role of the running processes needs none to change a head or to take away what waits.
APPEND = """
CREATE FUNCTION audit_append(for_desk text, kinds text[], subjects text[], bodies text[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    last_seq bigint := 0;
    last_hash bytea := decode(repeat('00', 32), 'hex');
    entry record;
    previous bytea;
    at_text text;
    desk_part text := {desk_part};
    all_chained boolean := false;
    why text := 'another transaction was appending';
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('audit:' || for_desk, 0)) THEN
        BEGIN
            -- The rows are what counts: a head that is lost, or older than they are, holds up nothing.
            FOR entry IN
                (SELECT seq, hash FROM audit_heads WHERE desk = for_desk)
                UNION ALL (SELECT seq, hash FROM audit WHERE desk = for_desk ORDER BY seq DESC LIMIT 1)
            LOOP
                IF entry.seq > last_seq THEN
                    last_seq := entry.seq;
                    last_hash := entry.hash;
                END IF;
            END LOOP;
            FOR entry IN
                WITH taken AS (
                    DELETE FROM audit_waiting WHERE number IN (
                        SELECT number FROM audit_waiting WHERE desk = for_desk ORDER BY number LIMIT {most})
                    RETURNING number, at, kind, subject, body)
                SELECT number, 0 AS place, at, kind, subject, body FROM taken
                UNION ALL SELECT NULL, place, clock_timestamp(), kind, subject, body
                FROM unnest(kinds, subjects, bodies) WITH ORDINALITY AS entries (kind, subject, body, place)
                WHERE NOT EXISTS (SELECT FROM audit_waiting WHERE desk = for_desk OFFSET {most})
                ORDER BY number NULLS LAST, place
            LOOP
                all_chained := all_chained OR entry.number IS NULL;
                previous := last_hash;
                last_seq := last_seq + 1;
                at_text := {moment};
                last_hash := sha256(convert_to(desk_part || {parts}, 'UTF8'));
                INSERT INTO audit VALUES (
                    for_desk, last_seq, entry.at, entry.kind, entry.subject, entry.body, previous, last_hash);
            END LOOP;
            UPDATE audit_heads SET seq = last_seq, hash = last_hash WHERE desk = for_desk;
            IF NOT FOUND THEN
                INSERT INTO audit_heads VALUES (for_desk, last_seq, last_hash);
            END IF;
            IF all_chained OR cardinality(kinds) = 0 THEN
                RETURN true;
            END IF;
            why := 'more than {most} entries were waiting';
        EXCEPTION WHEN OTHERS THEN
            why := SQLERRM;
        END;
    END IF;
    INSERT INTO audit_waiting (desk, at, kind, subject, body, why)
        SELECT for_desk, clock_timestamp(), kind, subject, body, why
        FROM unnest(kinds, subjects, bodies) WITH ORDINALITY AS entries (kind, subject, body, place) ORDER BY place;
    RETURN false;
END
$$
"""
MOST = 500
# What a desk had decided before is counted, so that rows without a link are told from rows that were put in later. Up to an hour
# ago: workers of the version before go on for a while, and write no links; what they write then is neither missing nor too much.
COUNT = """
SELECT desk, sum(decisions)::bigint AS decisions, sum(instructions)::bigint AS instructions, {until} AS until
FROM (SELECT desk, count(*) FILTER (WHERE timestamp < now() - interval '1 hour') AS decisions, 0 AS instructions
        FROM decisions GROUP BY desk
    UNION ALL SELECT desk, 0, count(*) FILTER (WHERE prepared_at < now() - interval '1 hour') FROM instructions GROUP BY desk
    UNION ALL SELECT desk, 0, 0 FROM desks) AS counted
GROUP BY desk ORDER BY desk
"""


def counted(connection: sa.Connection) -> list[dict[str, object]]:
    """What each desk has. Two whole tables are read, so whoever migrates counts before anything is locked."""
    until = MOMENT_TEXT.format(at="(now() - interval '1 hour')")
    found = connection.exec_driver_sql(COUNT.format(until=until)).mappings()
    return [dict(row) for row in found]


def _append(schema: str) -> str:
    hashed = ("last_seq::text", "at_text", "entry.kind", "entry.subject", "entry.body", "encode(previous, 'hex')")
    parts = " || ".join(PART.format(part=part) for part in hashed)
    desk = PART.format(part="for_desk")
    return APPEND.format(
        schema=schema, most=MOST, parts=parts, desk_part=desk, moment=MOMENT_TEXT.format(at="entry.at")
    )


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("desk", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", IDENTIFIER, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("previous", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_index("audit_by_time", "audit", ["at"], postgresql_using="brin")
    op.create_table(
        "audit_heads",
        sa.Column("desk", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "audit_waiting",
        sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", IDENTIFIER, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )
    op.create_index("audit_waiting_of_desk", "audit_waiting", ["desk", "number"])
    op.create_table(
        "audit_checkpoints",
        sa.Column("at", MOMENT, primary_key=True),
        sa.Column("public_key", sa.Text, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
    )
    _create_watch()
    _begin_chains(op.get_bind(), context.config.attributes.get("audited"))


def _create_watch() -> None:
    """How far the workers' running verification is."""
    op.create_table(
        "audit_watch",
        sa.Column("desk", sa.Text, primary_key=True),
        sa.Column("again", sa.Boolean, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary),
        sa.Column("unsettled", sa.ARRAY(sa.BigInteger), nullable=False, server_default="{}"),
        sa.Column("latched", sa.Boolean),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("looked_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("at_end", sa.Boolean, nullable=False, server_default="false"),
        sa.Column("fault_kind", sa.Text),
        sa.Column("fault_seq", sa.BigInteger),
        sa.Column("fault_what", sa.Text),
        sa.Column("fault_at", MOMENT),
        sa.Column("fault_times", sa.Integer, nullable=False, server_default="0"),
        sa.Column("accepted_seq", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("accepted_at", MOMENT),
    )
    op.create_index("audit_watch_looked", "audit_watch", ["looked_at"])
    op.create_index("audit_watch_faults", "audit_watch", ["desk"], postgresql_where=sa.text("fault_kind IS NOT NULL"))


def _begin_chains(connection: sa.Connection, desks: list[dict[str, object]] | None) -> None:
    schema = connection.scalar(sa.text("SELECT quote_ident(current_schema())"))
    # Not as text: a colon in it is no parameter.
    connection.exec_driver_sql(_append(schema).replace("%", "%%"))
    # It runs with its owner's rights, and PostgreSQL lets everybody call a new function.
    connection.exec_driver_sql("REVOKE ALL ON FUNCTION audit_append(text, text[], text[], text[]) FROM PUBLIC")
    for desk in counted(connection) if desks is None else desks:
        body = '{{"decisions":{decisions},"instructions":{instructions},"until":"{until}"}}'.format_map(desk)
        values = {"desk": desk["desk"], "kinds": ["chain_begun"], "subjects": [desk["desk"]], "bodies": [body]}
        connection.execute(sa.text("SELECT audit_append(:desk, :kinds, :subjects, :bodies)"), values)


def downgrade() -> None:
    op.execute("DROP FUNCTION audit_append(text, text[], text[], text[])")
    for table in ("audit_watch", "audit_checkpoints", "audit_waiting", "audit_heads", "audit"):
        op.drop_table(table)
