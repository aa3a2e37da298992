"""What the running verification needs to find rows of the log that no chain has (`storage.audit.unproved`): how far it is, what
it found, and an index by which the link of a row is found.

While the index is built nothing can be appended to the chain. Nobody waits for that: the entries go to `audit_waiting`, and the
next append chains them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

MOMENT = sa.DateTime(timezone=True)
IDENTIFIER = sa.Text(collation="C")


def upgrade() -> None:
    op.create_index("audit_by_subject", "audit", ["subject"])
    op.create_table(
        "audit_tables",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("after", IDENTIFIER, nullable=False, server_default=""),
        sa.Column("looked_at", MOMENT),
        sa.Column("ended_at", MOMENT),
    )
    op.create_table(
        "audit_unproved",
        sa.Column("desk", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("id", IDENTIFIER, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    for table in ("audit_unproved", "audit_tables"):
        op.drop_table(table)
    op.drop_index("audit_by_subject", "audit")
