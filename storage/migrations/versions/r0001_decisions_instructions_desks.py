"""The decision log, the instructions, and one row a desk."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)
IDENTIFIER = sa.Text(collation="C")


def upgrade() -> None:
    _create_decisions()
    _create_instructions()
    _create_desks()


def _create_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("decision_id", IDENTIFIER, nullable=False),
        sa.Column("timestamp", MOMENT, nullable=False),
        sa.Column("decision_type", sa.Text, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("agent_votes", JSONB, nullable=False),
        sa.Column("selected_signal_id", sa.Text),
        sa.Column("selected_order_id", sa.Text),
        sa.Column("risk_passed", sa.Boolean),
        sa.Column("risk_reasons", JSONB, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text),
        sa.Column("command_id", sa.Text),
        sa.Column("cycles", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("decision_id", name="decisions_pkey"),
    )
    op.create_index("decisions_by_time", "decisions", ["timestamp", "decision_id"])
    op.create_index("decisions_by_desk", "decisions", ["desk", "timestamp", "decision_id"])
    op.create_index("decisions_by_type", "decisions", ["decision_type", "timestamp", "decision_id"])
    op.create_index("decisions_by_risk", "decisions", ["risk_passed", "timestamp", "decision_id"])
    op.create_index("decisions_by_symbol", "decisions", ["symbol", "timestamp", "decision_id"])
    op.create_table(
        "decision_agents",
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("timestamp", MOMENT, nullable=False),
        sa.Column("decision_id", IDENTIFIER, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "timestamp", "decision_id", name="decision_agents_pkey"),
    )


def _create_instructions() -> None:
    op.create_table(
        "instructions",
        sa.Column("instruction_id", IDENTIFIER, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("command_id", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("prepared_at", MOMENT, nullable=False),
        sa.Column("settled_at", MOMENT),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("detail", sa.Text),
        sa.Column("side", sa.Text),
        sa.Column("order_type", sa.Text),
        sa.Column("quantity", sa.Numeric),
        sa.Column("price", sa.Numeric),
        sa.Column("reduce_only", sa.Boolean),
        sa.PrimaryKeyConstraint("instruction_id", name="instructions_pkey"),
    )
    op.create_index("instructions_by_time", "instructions", ["desk", "prepared_at", "instruction_id"])
    op.create_index("instructions_by_command", "instructions", ["command_id"])


def _create_desks() -> None:
    op.create_table(
        "desks",
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("symbols", JSONB, nullable=False),
        sa.Column("killed", sa.Boolean, nullable=False),
        sa.Column("kill_number", sa.BigInteger, nullable=False),
        sa.Column("cleared_number", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("actor", sa.Text),
        sa.Column("killed_at", MOMENT),
        sa.Column("quiet_at", MOMENT),
        sa.PrimaryKeyConstraint("desk", name="desks_pkey"),
    )


def downgrade() -> None:
    for table in ("desks", "instructions", "decision_agents", "decisions"):
        op.drop_table(table)
