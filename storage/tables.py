"""The tables, as the newest migration leaves them; a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    Uuid,
    literal_column,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s",
    }
)

Moment = DateTime(timezone=True)
# Without precision: PostgreSQL keeps every digit that it is given.
Exact = Numeric(asdecimal=True)
# Byte order: pages must be cut alike on every server, whatever its locale.
Identifier = Text(collation="C")

# One row: which database this is (`storage.installation`).
installation = Table(
    "installation",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default=true()),
    Column("database_id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    CheckConstraint("only_row", name="one_row"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", Identifier, primary_key=True),
    Column("timestamp", Moment, nullable=False),
    Column("decision_type", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("agent_votes", JSONB, nullable=False),
    Column("selected_signal_id", Text),
    Column("selected_order_id", Text),
    Column("risk_passed", Boolean),
    Column("risk_reasons", JSONB, nullable=False),
    Column("desk", Text, nullable=False),
    Column("symbol", Text),
    Column("command_id", Text),
    Column("cycles", Integer, nullable=False),
)

# One index a filter, each ending in the order of the pages: a page is one walk along one index, however deep it lies.
Index("decisions_by_time", decisions.c.timestamp, decisions.c.decision_id)
Index("decisions_by_desk", decisions.c.desk, decisions.c.timestamp, decisions.c.decision_id)
Index("decisions_by_type", decisions.c.decision_type, decisions.c.timestamp, decisions.c.decision_id)
Index("decisions_by_risk", decisions.c.risk_passed, decisions.c.timestamp, decisions.c.decision_id)
Index("decisions_by_symbol", decisions.c.symbol, decisions.c.timestamp, decisions.c.decision_id)

# The keys of `agent_votes` once more. A GIN index finds them too, but not in order: for an agent that votes in every
# cycle it would read the whole log to sort it.
decision_agents = Table(
    "decision_agents",
    metadata,
    Column("agent_id", Text, primary_key=True),
    Column("timestamp", Moment, primary_key=True),
    Column("decision_id", Identifier, primary_key=True),
)

instructions = Table(
    "instructions",
    metadata,
    Column("instruction_id", Identifier, primary_key=True),
    Column("desk", Text, nullable=False),
    Column("command_id", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("tool", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("prepared_at", Moment, nullable=False),
    Column("settled_at", Moment),
    Column("attempts", Integer, nullable=False),
    Column("detail", Text),
    Column("side", Text),
    Column("order_type", Text),
    Column("quantity", Exact),
    Column("price", Exact),
    Column("reduce_only", Boolean),
    # The order's id at the venue, where the venue has told it.
    Column("venue_order_id", Identifier),
)
Index("instructions_by_venue_order", instructions.c.desk, instructions.c.venue_order_id)
Index("instructions_by_time", instructions.c.desk, instructions.c.prepared_at, instructions.c.instruction_id)
Index("instructions_by_command", instructions.c.command_id)

# One row a desk: whether it was ever started, and the second place of the kill's latch.
desks = Table(
    "desks",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("mode", Text, nullable=False),
    Column("symbols", JSONB, nullable=False),
    Column("killed", Boolean, nullable=False),
    Column("kill_number", BigInteger, nullable=False),
    Column("cleared_number", BigInteger, nullable=False),
    Column("reason", Text),
    Column("actor", Text),
    Column("killed_at", Moment),
    Column("quiet_at", Moment),
    Column("kill_id", Identifier),
    Column("cleared_by", Identifier),
)

# Every kill that was ever written to a desk's row, and the restart that cleared it: a write that comes late is known by it.
kills = Table(
    "kills",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("kill_id", Identifier, primary_key=True),
    Column("kill_number", BigInteger, nullable=False),
    Column("cleared_by", Identifier),
)

# The paper venue: a world of its own that happens to live in the same database.
PAPER = "paper"

paper_accounts = Table(
    "accounts",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("balance", Exact, nullable=False),
    Column("opening_balance", Exact, nullable=False),
    schema=PAPER,
)

# Its row is also the lock of the desk's whole account: whoever changes anything holds it.
paper_clocks = Table(
    "clocks",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("bar_no", BigInteger, nullable=False),
    Column("cycle_id", Text),
    Column("advanced_at", Moment, nullable=False),
    Column("bar_time", Moment),
    Column("bars", JSONB, nullable=False, server_default="{}"),
    schema=PAPER,
)

paper_orders = Table(
    "orders",
    metadata,
    Column("order_id", Identifier, primary_key=True),
    Column("desk", Text, nullable=False),
    Column("market", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("order_type", Text, nullable=False),
    Column("quantity", Exact, nullable=False),
    Column("price", Exact),
    Column("reduce_only", Boolean, nullable=False),
    Column("time_in_force", Text),
    Column("status", Text, nullable=False),
    Column("filled_quantity", Exact, nullable=False),
    Column("filled_value", Exact, nullable=False),
    Column("fills", Integer, nullable=False),
    Column("average_price", Exact),
    Column("code", Integer),
    Column("reason", Text, nullable=False),
    # None for the venue's own orders, which close what it liquidates and have no time to run out.
    Column("not_after", Moment),
    Column("created_at", Moment, nullable=False),
    Column("bar_no", BigInteger, nullable=False),
    schema=PAPER,
)
Index(
    "orders_open",
    paper_orders.c.desk,
    paper_orders.c.created_at,
    postgresql_where=paper_orders.c.status == literal_column("'open'"),
)

paper_fills = Table(
    "fills",
    metadata,
    Column("fill_id", Identifier, primary_key=True),
    Column("order_id", Identifier, ForeignKey(paper_orders.c.order_id), nullable=False),
    Column("desk", Text, nullable=False),
    Column("market", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("quantity", Exact, nullable=False),
    Column("price", Exact, nullable=False),
    Column("fee", Exact, nullable=False),
    Column("realised_profit", Exact, nullable=False),
    Column("maker", Boolean, nullable=False),
    Column("filled_at", Moment, nullable=False),
    Column("bar_no", BigInteger, nullable=False),
    # None where an older version wrote the fill.
    Column("market_time", Moment),
    schema=PAPER,
)
Index("fills_by_time", paper_fills.c.desk, paper_fills.c.filled_at, paper_fills.c.fill_id)
# What the account has had of a bar's volume is the sum of that bar's fills.
Index("fills_by_bar", paper_fills.c.desk, paper_fills.c.bar_no)

paper_ledger = Table(
    "ledger",
    metadata,
    Column("entry_id", Identifier, primary_key=True),
    Column("desk", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("market", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("amount", Exact, nullable=False),
    Column("price", Exact),
    Column("rate", Exact),
    Column("market_time", Moment, nullable=False),
    Column("bar_no", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    schema=PAPER,
)
Index("ledger_by_time", paper_ledger.c.desk, paper_ledger.c.at, paper_ledger.c.entry_id)

paper_positions = Table(
    "positions",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("market", Text, primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("quantity", Exact, nullable=False),
    Column("cost", Exact, nullable=False),
    Column("realised_profit", Exact, nullable=False),
    Column("fees", Exact, nullable=False),
    Column("funding", Exact, nullable=False),
    schema=PAPER,
)

# Which desk trades on an account: one at a time (`storage.claims`). The account is its fingerprint.
claims = Table(
    "claims",
    metadata,
    Column("exchange", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("desk", Text, nullable=False),
    Column("claimed_at", Moment, nullable=False),
)

# What a real account did, as the exchange tells it (`storage.books`).
LIVE = "live"

live_books = Table(
    "books",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("exchange", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("opened_at", Moment, nullable=False),
    # Who reads at the exchange, and until when nobody else does.
    Column("leased_by", Text),
    Column("leased_until", Moment),
    Column("state", JSONB, nullable=False),
    schema=LIVE,
)

live_fills = Table(
    "fills",
    metadata,
    Column("exchange", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("market", Text, primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("trade_id", Identifier, primary_key=True),
    Column("fill_id", Identifier, nullable=False),
    Column("desk", Text, nullable=False),
    # The exchange's id of the order.
    Column("order_id", Identifier, nullable=False),
    Column("side", Text, nullable=False),
    Column("quantity", Exact, nullable=False),
    Column("price", Exact, nullable=False),
    Column("fee", Exact, nullable=False),
    Column("fee_asset", Text, nullable=False),
    Column("realised_profit", Exact, nullable=False),
    Column("maker", Boolean, nullable=False),
    Column("filled_at", Moment, nullable=False),
    schema=LIVE,
)
Index("fills_by_time", live_fills.c.desk, live_fills.c.filled_at, live_fills.c.fill_id)

live_income = Table(
    "income",
    metadata,
    Column("exchange", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("entry_id", Identifier, primary_key=True),
    Column("desk", Text, nullable=False),
    Column("income_type", Text, nullable=False),
    # None for what the fills tell already: fees and realised profits.
    Column("kind", Text),
    Column("symbol", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", Exact, nullable=False),
    Column("trade_id", Identifier),
    Column("at", Moment, nullable=False),
    schema=LIVE,
)
Index("income_by_time", live_income.c.desk, live_income.c.at, live_income.c.entry_id)
Index("income_by_trade", live_income.c.desk, live_income.c.symbol, live_income.c.trade_id)
