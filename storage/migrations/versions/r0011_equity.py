"""What a desk's account was worth, a row a cycle, and the extremes of each hour, which a curve over months is drawn from."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision = "0010"

MOMENT = sa.DateTime(timezone=True)
NUMBERS = ("equity", "balance", "drawdown", "gross_exposure", "net_exposure", "leverage")


def upgrade() -> None:
    op.create_table(
        "equity",
        sa.Column("desk", sa.Text, primary_key=True),
        sa.Column("time", MOMENT, primary_key=True),
        *(sa.Column(name, sa.Numeric, nullable=False) for name in NUMBERS),
        sa.Column("prices", JSONB, nullable=False),
    )
    op.create_table(
        "equity_hours",
        sa.Column("desk", sa.Text, primary_key=True),
        sa.Column("hour", MOMENT, primary_key=True),
        sa.Column("lowest", sa.Numeric, nullable=False),
        sa.Column("lowest_time", MOMENT, nullable=False),
        sa.Column("highest", sa.Numeric, nullable=False),
        sa.Column("highest_time", MOMENT, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("equity_hours")
    op.drop_table("equity")
