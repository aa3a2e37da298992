"""Keys of the API beside AIS_API_KEY: whose each is, what it may do, until when."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("key_id", sa.Text(collation="C"), primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("desks", sa.ARRAY(sa.Text)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("revoked_at", MOMENT),
        sa.Column("revoked_by", sa.Text),
        sa.Column("last_used_at", MOMENT),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="keys_known_role"),
        sa.CheckConstraint("cardinality(desks) > 0", name="keys_some_desk"),
    )
    op.create_index("keys_by_name", "keys", ["name"])


def downgrade() -> None:
    op.drop_table("keys")
