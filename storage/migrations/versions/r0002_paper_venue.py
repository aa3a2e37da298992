"""The paper venue, in a schema of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = "paper"
MOMENT = sa.DateTime(timezone=True)
IDENTIFIER = sa.Text(collation="C")

# Runs as part of COMMIT. A check at the start of the transaction is not enough: a PostgreSQL that was stopped with
# COMMIT already in its inbox executes it whenever it continues, be it minutes after a kill.
REFUSE_LATE_ORDER = """
CREATE FUNCTION paper.refuse_late_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF clock_timestamp() > NEW.not_after THEN
        RAISE EXCEPTION 'too late: order % was not to begin after %', NEW.order_id, NEW.not_after
            USING ERRCODE = 'AIS01';
    END IF;
    RETURN NULL;
END
$$
"""
TRIGGER = """
CREATE CONSTRAINT TRIGGER refuse_late_order AFTER INSERT ON paper.orders
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.status IN ('open', 'filled'))
    EXECUTE FUNCTION paper.refuse_late_order()
"""


def upgrade() -> None:
    op.execute("CREATE SCHEMA paper")
    _create_account()
    _create_orders()
    _create_fills()
    op.execute(REFUSE_LATE_ORDER)
    op.execute(TRIGGER)


def _create_account() -> None:
    op.create_table(
        "accounts",
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("balance", sa.Numeric, nullable=False),
        sa.PrimaryKeyConstraint("desk", name="accounts_pkey"),
        schema=SCHEMA,
    )
    op.create_table(
        "clocks",
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("bar_no", sa.BigInteger, nullable=False),
        sa.Column("cycle_id", sa.Text),
        sa.Column("advanced_at", MOMENT, nullable=False),
        sa.Column("bar_time", MOMENT),
        sa.PrimaryKeyConstraint("desk", name="clocks_pkey"),
        schema=SCHEMA,
    )
    op.create_table(
        "positions",
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("market", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("quantity", sa.Numeric, nullable=False),
        sa.Column("cost", sa.Numeric, nullable=False),
        sa.PrimaryKeyConstraint("desk", "market", "symbol", name="positions_pkey"),
        schema=SCHEMA,
    )


def _create_orders() -> None:
    op.create_table(
        "orders",
        sa.Column("order_id", IDENTIFIER, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("market", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("order_type", sa.Text, nullable=False),
        sa.Column("quantity", sa.Numeric, nullable=False),
        sa.Column("price", sa.Numeric),
        sa.Column("reduce_only", sa.Boolean, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("filled_quantity", sa.Numeric, nullable=False),
        sa.Column("average_price", sa.Numeric),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("not_after", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("bar_no", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("order_id", name="orders_pkey"),
        schema=SCHEMA,
    )
    op.create_index(
        "orders_open",
        "orders",
        ["desk", "created_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("status = 'open'"),
    )


def _create_fills() -> None:
    op.create_table(
        "fills",
        sa.Column("fill_id", IDENTIFIER, nullable=False),
        sa.Column("order_id", IDENTIFIER, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("market", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("quantity", sa.Numeric, nullable=False),
        sa.Column("price", sa.Numeric, nullable=False),
        sa.Column("fee", sa.Numeric, nullable=False),
        sa.Column("realised_profit", sa.Numeric, nullable=False),
        sa.Column("filled_at", MOMENT, nullable=False),
        sa.Column("bar_no", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("fill_id", name="fills_pkey"),
        sa.ForeignKeyConstraint(["order_id"], ["paper.orders.order_id"], name="fills_order_id_fkey"),
        schema=SCHEMA,
    )
    op.create_index("fills_by_time", "fills", ["desk", "filled_at"], schema=SCHEMA)


def downgrade() -> None:
    op.execute("DROP SCHEMA paper CASCADE")
