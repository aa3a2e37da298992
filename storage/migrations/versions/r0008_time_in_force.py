"""Orders have a time in force: what a limit order of an agent was sent with."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("instructions", sa.Column("time_in_force", sa.Text))


def downgrade() -> None:
    op.drop_column("instructions", "time_in_force")
