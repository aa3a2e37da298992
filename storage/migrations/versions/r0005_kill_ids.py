"""Kills have ids, and so has the restart that cleared one: two kills of the same number are told apart."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

IDENTIFIER = sa.Text(collation="C")


def upgrade() -> None:
    op.add_column("desks", sa.Column("kill_id", IDENTIFIER))
    op.add_column("desks", sa.Column("cleared_by", IDENTIFIER))
    op.create_table(
        "kills",
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("kill_id", IDENTIFIER, nullable=False),
        sa.Column("kill_number", sa.BigInteger, nullable=False),
        sa.Column("cleared_by", IDENTIFIER),
        sa.PrimaryKeyConstraint("desk", "kill_id", name="kills_pkey"),
    )


def downgrade() -> None:
    op.drop_table("kills")
    op.drop_column("desks", "cleared_by")
    op.drop_column("desks", "kill_id")
