"""Live books: which desk an account belongs to, the fills and the money of a real account, and the venue's own order ids."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"

IDENTIFIER = sa.Text(collation="C")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("instructions", sa.Column("venue_order_id", IDENTIFIER))
    op.create_index("instructions_by_venue_order", "instructions", ["desk", "venue_order_id"])
    op.create_table(
        "claims",
        sa.Column("exchange", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("claimed_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("exchange", "account", name="claims_pkey"),
    )
    op.execute("CREATE SCHEMA live")
    _books()
    _fills()
    _income()


def _books() -> None:
    op.create_table(
        "books",
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("exchange", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("leased_by", sa.Text),
        sa.Column("leased_until", MOMENT),
        sa.Column("state", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("desk", name="books_pkey"),
        schema="live",
    )


def _fills() -> None:
    op.create_table(
        "fills",
        sa.Column("exchange", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("market", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("trade_id", IDENTIFIER, nullable=False),
        sa.Column("fill_id", IDENTIFIER, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("order_id", IDENTIFIER, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("quantity", sa.Numeric, nullable=False),
        sa.Column("price", sa.Numeric, nullable=False),
        sa.Column("fee", sa.Numeric, nullable=False),
        sa.Column("fee_asset", sa.Text, nullable=False),
        sa.Column("realised_profit", sa.Numeric, nullable=False),
        sa.Column("maker", sa.Boolean, nullable=False),
        sa.Column("filled_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("exchange", "account", "market", "symbol", "trade_id", name="fills_pkey"),
        schema="live",
    )
    op.create_index("fills_by_time", "fills", ["desk", "filled_at", "fill_id"], schema="live")


def _income() -> None:
    op.create_table(
        "income",
        sa.Column("exchange", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("entry_id", IDENTIFIER, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("income_type", sa.Text, nullable=False),
        sa.Column("kind", sa.Text),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("amount", sa.Numeric, nullable=False),
        sa.Column("trade_id", IDENTIFIER),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("exchange", "account", "entry_id", name="income_pkey"),
        schema="live",
    )
    op.create_index("income_by_time", "income", ["desk", "at", "entry_id"], schema="live")
    op.create_index("income_by_trade", "income", ["desk", "symbol", "trade_id"], schema="live")


def downgrade() -> None:
    op.execute("DROP SCHEMA live CASCADE")
    op.drop_table("claims")
    op.drop_index("instructions_by_venue_order", "instructions")
    op.drop_column("instructions", "venue_order_id")
