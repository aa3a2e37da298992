"""What notifications are made from, and what became of each: facts of the decision log that stood in its sentences alone, the
order in which its rows were written, and the notices of each channel.

Rows that are there already have none of these facts: what happened before is not told.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

MOMENT = sa.DateTime(timezone=True)
IDENTIFIER = sa.Text(collation="C")
TOLD = "decision_type IN ('control', 'risk_action')"
INDEXES = {"decisions_as_written": f"(desk, written) WHERE {TOLD}"}


def upgrade() -> None:
    for name in ("command", "result", "source"):
        op.add_column("decisions", sa.Column(name, sa.Text))
    op.execute("CREATE SEQUENCE decisions_written")
    # In two steps: a column that is made with such a default would rewrite the whole table.
    op.add_column("decisions", sa.Column("written", sa.BigInteger))
    op.execute("ALTER TABLE decisions ALTER COLUMN written SET DEFAULT nextval('decisions_written')")
    if op.get_bind().execute(sa.text("SELECT 1 FROM decisions LIMIT 1")).scalar() is None:
        for name, columns in INDEXES.items():
            op.execute(f"CREATE INDEX {name} ON decisions {columns}")
    _create_notices()
    _create_states()


def _create_notices() -> None:
    op.create_table(
        "notices",
        sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("event_id", IDENTIFIER, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("sent_at", MOMENT),
    )
    op.create_index("notices_of_event", "notices", ["desk", "event_id", "channel"], unique=True)
    op.create_index(
        "notices_waiting", "notices", ["desk", "channel", "number"], postgresql_where=sa.text("sent_at IS NULL")
    )
    op.create_index("notices_sent", "notices", ["desk", "channel", "kind", "sent_at"])


def _create_states() -> None:
    op.create_table(
        "notice_channels",
        sa.Column("desk", sa.Text, primary_key=True),
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("begun", sa.BigInteger, nullable=False),
        sa.Column("looked_at", MOMENT, nullable=False),
        sa.Column("held_by", sa.Text),
        sa.Column("held_until", MOMENT),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("not_before", MOMENT),
        sa.Column("last_error", sa.Text),
    )
    op.create_table(
        "notice_desks",
        sa.Column("desk", sa.Text, primary_key=True),
        sa.Column("begun_at", MOMENT, nullable=False),
        sa.Column("begun", sa.BigInteger, nullable=False),
        sa.Column("read", sa.BigInteger, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("cycle_at", MOMENT),
        sa.Column("cycle_seen_at", MOMENT),
        sa.Column("cycle_seconds", sa.Double, nullable=False),
        sa.Column("silent_since", MOMENT),
        sa.Column("summarised", sa.Date, nullable=False),
    )


def downgrade() -> None:
    for table in ("notice_desks", "notice_channels", "notices"):
        op.drop_table(table)
    op.execute("DROP INDEX IF EXISTS decisions_as_written")
    for name in ("written", "source", "result", "command"):
        op.drop_column("decisions", name)
    op.execute("DROP SEQUENCE decisions_written")
