"""The newest bars of a paper desk whose market is a real one: what it holds has a price while that market is away."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

SCHEMA = "paper"


def upgrade() -> None:
    op.add_column("clocks", sa.Column("bars", JSONB, nullable=False, server_default="{}"), schema=SCHEMA)


def downgrade() -> None:
    op.drop_column("clocks", "bars", schema=SCHEMA)
