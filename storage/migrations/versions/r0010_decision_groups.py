"""The decision log's indexes by groups: rows of one desk, type and verdict, of one symbol or all, of the same voters or all.

On an empty log the indexes are made here. On any other `storage.indexes` makes them afterwards, while desks write.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"

MOMENT = sa.DateTime(timezone=True)
IDENTIFIER = sa.Text(collation="C")

# A number for a group, in eight bytes where its words would take forty. Two groups of one number would only be read together.
GROUP = """
CREATE FUNCTION decision_group(desk text, decision_type text, risk_passed boolean, symbol text, agents jsonb)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.hashtextextended(
        desk || '/' || decision_type || '/' || coalesce(risk_passed::text, '-') || '/' || coalesce(symbol, '')
        || coalesce('/' || agents::text, ''), 0)
$$
"""
# In the order in which jsonb keeps them: the same agents are the same text.
AGENTS = """
CREATE FUNCTION voting_agents(votes jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.jsonb_path_query_array(votes, '$.keyvalue().key')
$$
"""
# Whoever writes a row, an older version too.
NOTE = """
CREATE FUNCTION note_decision_voters() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO decision_voters (desk, decision_type, risk_passed, agents)
    SELECT DISTINCT desk, decision_type, risk_passed, voting_agents(agent_votes) FROM rows WHERE agent_votes <> '{}'
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$
"""
TRIGGER = """
CREATE TRIGGER note_voters_{event} AFTER {event} ON decisions REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION note_decision_voters()
"""
# What older versions still write and read until they are replaced.
VIEW = """
CREATE VIEW decision_agents AS
    SELECT agent_id COLLATE "default" AS agent_id, timestamp, decision_id
    FROM decisions CROSS JOIN LATERAL jsonb_object_keys(agent_votes) AS agent_id
"""
IGNORE = """
CREATE FUNCTION ignore_decision_agents() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$
"""
IGNORING = """
CREATE TRIGGER ignore INSTEAD OF INSERT ON decision_agents FOR EACH ROW EXECUTE FUNCTION ignore_decision_agents()
"""
FILL = """
INSERT INTO decision_voters (desk, decision_type, risk_passed, agents)
SELECT DISTINCT desk, decision_type, risk_passed, voting_agents(agent_votes) FROM decisions WHERE agent_votes <> '{}'
ON CONFLICT DO NOTHING
"""
OF_AGENTS = "voting_agents(agent_votes)"
INDEXES = {
    "decisions_of_desk": "(desk, timestamp)",
    "decisions_of_group": "(decision_group(desk, decision_type, risk_passed, NULL, NULL), timestamp)",
    "decisions_of_symbol": "(decision_group(desk, decision_type, risk_passed, symbol, NULL), timestamp) WHERE symbol IS NOT NULL",
    "decisions_of_voters": f"(decision_group(desk, decision_type, risk_passed, NULL, {OF_AGENTS}), timestamp) "
    "WHERE agent_votes <> '{}'",
    "decisions_of_voters_and_symbol": f"(decision_group(desk, decision_type, risk_passed, symbol, {OF_AGENTS}), timestamp) "
    "WHERE symbol IS NOT NULL AND agent_votes <> '{}'",
    "decisions_of_command": "(command_id) WHERE command_id IS NOT NULL",
}
REPLACED = {
    "decisions_by_time": ["timestamp"],
    "decisions_by_desk": ["desk", "timestamp"],
    "decisions_by_type": ["decision_type", "timestamp"],
    "decisions_by_risk": ["risk_passed", "timestamp"],
    "decisions_by_symbol": ["symbol", "timestamp"],
}


def upgrade() -> None:
    for statement in (GROUP, AGENTS, NOTE):
        op.execute(statement)
    group = "decision_group(desk, decision_type, risk_passed, NULL, agents)"
    op.create_table(
        "decision_voters",
        sa.Column("decision_group", sa.BigInteger, sa.Computed(group, persisted=True), nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("decision_type", sa.Text, nullable=False),
        sa.Column("risk_passed", sa.Boolean),
        sa.Column("agents", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("decision_group", name="decision_voters_pkey"),
    )
    for event in ("INSERT", "UPDATE"):
        op.execute(TRIGGER.format(event=event))
    op.drop_table("decision_agents")
    for statement in (VIEW, IGNORE, IGNORING):
        op.execute(statement)
    if op.get_bind().execute(sa.text("SELECT 1 FROM decisions LIMIT 1")).scalar() is None:
        for name, columns in INDEXES.items():
            op.execute(f"CREATE INDEX {name} ON decisions {columns}")
        for name in REPLACED:
            op.execute(f"DROP INDEX {name}")


def downgrade() -> None:
    op.execute("DROP VIEW decision_agents")
    op.execute("DROP FUNCTION ignore_decision_agents()")
    op.create_table(
        "decision_agents",
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("timestamp", MOMENT, nullable=False),
        sa.Column("decision_id", IDENTIFIER, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "timestamp", "decision_id", name="decision_agents_pkey"),
    )
    op.execute(
        "INSERT INTO decision_agents SELECT agent_id, timestamp, decision_id "
        "FROM decisions CROSS JOIN LATERAL jsonb_object_keys(agent_votes) AS agent_id"
    )
    for name, columns in REPLACED.items():
        op.execute(f"DROP INDEX IF EXISTS {name}")
        op.create_index(name, "decisions", [*columns, "decision_id"])
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
    for event in ("INSERT", "UPDATE"):
        op.execute(f"DROP TRIGGER note_voters_{event} ON decisions")
    op.drop_table("decision_voters")
    op.execute("DROP FUNCTION note_decision_voters()")
    op.execute("DROP FUNCTION voting_agents(jsonb)")
    op.execute("DROP FUNCTION decision_group(text, text, boolean, text, jsonb)")
