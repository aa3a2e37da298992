"""The paper venue's accounting: what each symbol earned and cost, a ledger, orders filled in parts, liquidations."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

SCHEMA = "paper"
MOMENT = sa.DateTime(timezone=True)
IDENTIFIER = sa.Text(collation="C")

# As before, for every order that the venue accepted: whole, in part, resting or expired. What the venue liquidates has no
# `not_after`, and the comparison with nothing refuses nothing.
REFUSE_LATE = """
CREATE CONSTRAINT TRIGGER refuse_late_order AFTER INSERT ON paper.orders
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.status {accepted})
    EXECUTE FUNCTION paper.refuse_late_order()
"""
ACCEPTED_NOW = "<> 'rejected'"
ACCEPTED_BEFORE = "IN ('open', 'filled')"

# Orders were filled whole or not at all until now: one fill each.
FILL_IN_ORDERS = """
UPDATE paper.orders SET fills = done.fills, filled_value = done.value
FROM (SELECT order_id, count(*) AS fills, sum(quantity * price) AS value FROM paper.fills GROUP BY order_id) AS done
WHERE orders.order_id = done.order_id
"""
FILL_IN_POSITIONS = """
UPDATE paper.positions SET realised_profit = done.profit, fees = done.fees
FROM (
    SELECT desk, market, symbol, sum(realised_profit) AS profit, sum(fee) AS fees
    FROM paper.fills GROUP BY desk, market, symbol
) AS done
WHERE (positions.desk, positions.market, positions.symbol) = (done.desk, done.market, done.symbol)
"""
FILL_IN_OPENING = """
UPDATE paper.accounts SET opening_balance = balance - coalesce(
    (SELECT sum(realised_profit - fee) FROM paper.fills WHERE fills.desk = accounts.desk), 0
)
"""


def upgrade() -> None:
    _add("orders", sa.Column("time_in_force", sa.Text))
    _add("orders", sa.Column("code", sa.Integer))
    _add("orders", sa.Column("fills", sa.Integer, nullable=False, server_default="0"))
    _add("orders", _amount("filled_value"))
    op.alter_column("orders", "not_after", nullable=True, schema=SCHEMA)
    _add("fills", sa.Column("maker", sa.Boolean, nullable=False, server_default=sa.false()))
    _add("fills", sa.Column("market_time", MOMENT))
    op.drop_index("fills_by_time", "fills", schema=SCHEMA)
    op.create_index("fills_by_time", "fills", ["desk", "filled_at", "fill_id"], schema=SCHEMA)
    op.create_index("fills_by_bar", "fills", ["desk", "bar_no"], schema=SCHEMA)
    for name in ("realised_profit", "fees", "funding"):
        _add("positions", _amount(name))
    _add("accounts", _amount("opening_balance"))
    _create_ledger()
    for statement in (FILL_IN_ORDERS, FILL_IN_POSITIONS, FILL_IN_OPENING):
        op.execute(statement)
    op.execute("DROP TRIGGER refuse_late_order ON paper.orders")
    op.execute(REFUSE_LATE.format(accepted=ACCEPTED_NOW))


def _create_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("entry_id", IDENTIFIER, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("market", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("amount", sa.Numeric, nullable=False),
        sa.Column("price", sa.Numeric),
        sa.Column("rate", sa.Numeric),
        sa.Column("market_time", MOMENT, nullable=False),
        sa.Column("bar_no", sa.BigInteger, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("entry_id", name="ledger_pkey"),
        schema=SCHEMA,
    )
    op.create_index("ledger_by_time", "ledger", ["desk", "at", "entry_id"], schema=SCHEMA)


def _add(table: str, column: sa.Column[object]) -> None:
    op.add_column(table, column, schema=SCHEMA)


def _amount(name: str) -> sa.Column[object]:
    """With a default, so that rows which are there already have one."""
    return sa.Column(name, sa.Numeric, nullable=False, server_default="0")


def downgrade() -> None:
    """Money that the ledger moved stays where it is; only its record is lost."""
    op.execute("DROP TRIGGER refuse_late_order ON paper.orders")
    op.drop_table("ledger", schema=SCHEMA)
    for name in ("realised_profit", "fees", "funding"):
        op.drop_column("positions", name, schema=SCHEMA)
    op.drop_column("accounts", "opening_balance", schema=SCHEMA)
    op.drop_index("fills_by_bar", "fills", schema=SCHEMA)
    op.drop_index("fills_by_time", "fills", schema=SCHEMA)
    op.create_index("fills_by_time", "fills", ["desk", "filled_at"], schema=SCHEMA)
    for name in ("maker", "market_time"):
        op.drop_column("fills", name, schema=SCHEMA)
    op.execute("UPDATE paper.orders SET status = 'canceled' WHERE status = 'expired'")
    op.execute("UPDATE paper.orders SET not_after = created_at WHERE not_after IS NULL")
    op.alter_column("orders", "not_after", nullable=False, schema=SCHEMA)
    for name in ("time_in_force", "code", "fills", "filled_value"):
        op.drop_column("orders", name, schema=SCHEMA)
    op.execute(REFUSE_LATE.format(accepted=ACCEPTED_BEFORE))
