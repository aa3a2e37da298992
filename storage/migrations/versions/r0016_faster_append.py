"""`audit_append` in fewer statements: what it does is as it was in migration 0013, and a third less of the database's time.

Each statement of a function costs, however little it does. So the end of the chain, its head and whether anything waits are one
query, and `audit_waiting` is only changed where something waits in it.
"""

import sqlalchemy as sa
from alembic import op

from storage.migrations.versions.r0013_audit import APPEND, MOMENT_TEXT, MOST, PART

revision = "0016"
down_revision = "0015"

FEWER_STATEMENTS = """
CREATE OR REPLACE FUNCTION audit_append(for_desk text, kinds text[], subjects text[], bodies text[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    last record;
    last_seq bigint := 0;
    last_hash bytea := decode(repeat('00', 32), 'hex');
    -- What is chained: what waits, of which the moments are known, and then what is given.
    moments timestamptz[];
    link_kinds text[] := kinds;
    link_subjects text[] := subjects;
    link_bodies text[] := bodies;
    previous bytea;
    moment timestamptz;
    at_text text;
    desk_part text := {desk_part};
    too_many boolean := false;
    why text := 'another transaction was appending';
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('audit:' || for_desk, 0)) THEN
        BEGIN
            SELECT link.seq, link.hash, head.seq AS head_seq, head.hash AS head_hash,
                EXISTS (SELECT FROM audit_waiting WHERE desk = for_desk) AS waits
            INTO last FROM (SELECT) AS one LEFT JOIN audit_heads AS head ON head.desk = for_desk
            LEFT JOIN LATERAL (SELECT seq, hash FROM audit WHERE desk = for_desk ORDER BY seq DESC LIMIT 1) AS link ON true;
            -- The rows are what counts: a head that is lost, or older than they are, holds up nothing.
            IF last.seq > greatest(last.head_seq, 0) THEN
                last_seq := last.seq;
                last_hash := last.hash;
            ELSIF last.head_seq > 0 THEN
                last_seq := last.head_seq;
                last_hash := last.head_hash;
            END IF;
            IF last.waits THEN
                too_many := EXISTS (SELECT FROM audit_waiting WHERE desk = for_desk OFFSET {most});
                IF too_many THEN
                    link_kinds := '{{}}';
                    link_subjects := '{{}}';
                    link_bodies := '{{}}';
                END IF;
                WITH taken AS (
                    DELETE FROM audit_waiting WHERE number IN (
                        SELECT number FROM audit_waiting WHERE desk = for_desk ORDER BY number LIMIT {most})
                    RETURNING number, at, kind, subject, body)
                SELECT array_agg(at ORDER BY number), array_agg(kind ORDER BY number) || link_kinds,
                    array_agg(subject ORDER BY number) || link_subjects, array_agg(body ORDER BY number) || link_bodies
                INTO moments, link_kinds, link_subjects, link_bodies FROM taken;
            END IF;
            FOR place IN 1 .. cardinality(link_kinds) LOOP
                previous := last_hash;
                last_seq := last_seq + 1;
                moment := coalesce(moments[place], clock_timestamp());
                at_text := {moment};
                last_hash := sha256(convert_to(desk_part || {parts}, 'UTF8'));
                INSERT INTO audit VALUES (
                    for_desk, last_seq, moment, link_kinds[place], link_subjects[place], link_bodies[place], previous, last_hash);
            END LOOP;
            UPDATE audit_heads SET seq = last_seq, hash = last_hash WHERE desk = for_desk;
            IF NOT FOUND THEN
                INSERT INTO audit_heads VALUES (for_desk, last_seq, last_hash);
            END IF;
            IF NOT too_many OR cardinality(kinds) = 0 THEN
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
HASHED = ("last_seq::text", "at_text", "{kind}", "{subject}", "{body}", "encode(previous, 'hex')")
LINK = {"kind": "link_kinds[place]", "subject": "link_subjects[place]", "body": "link_bodies[place]"}
ENTRY = {"kind": "entry.kind", "subject": "entry.subject", "body": "entry.body"}


def upgrade() -> None:
    _replace(FEWER_STATEMENTS, LINK, moment="moment")


def downgrade() -> None:
    _replace(APPEND.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"), ENTRY, moment="entry.at")


def _replace(template: str, columns: dict[str, str], moment: str) -> None:
    """In the function's own schema; its owner and who may call it stay as they are."""
    connection = op.get_bind()
    function = template.format(
        schema=connection.scalar(sa.text("SELECT quote_ident(current_schema())")),
        most=MOST,
        parts=" || ".join(PART.format(part=part.format(**columns)) for part in HASHED),
        desk_part=PART.format(part="for_desk"),
        moment=MOMENT_TEXT.format(at=moment),
    )
    # Not as text: a colon in it is no parameter.
    connection.exec_driver_sql(function.replace("%", "%%"))
