"""The tables, as the newest migration leaves them; a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Computed,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    Uuid,
    and_,
    func,
    literal_column,
    null,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s",
    }
)

Moment = DateTime(timezone=True)
# Without precision: PostgreSQL keeps every digit.
Exact = Numeric(asdecimal=True)
# Byte order, so that pages are the same on every server, whatever its locale.
Identifier = Text(collation="C")

# One row: the id of this database (`storage.installation`).
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
    # The facts of the event, for notifications; None if an older version wrote the row.
    Column("command", Text),
    Column("result", Text),
    Column("source", Text),
    # The order in which rows were written; their timestamps may be in another order.
    Column("written", BigInteger, server_default=text("nextval('decisions_written')")),
)

# The agents that voted in rows of one desk, type and verdict: each set of agents once. A trigger of `decisions` writes it
# (migration 0010).
decision_voters = Table(
    "decision_voters",
    metadata,
    Column(
        "decision_group",
        BigInteger,
        Computed("decision_group(desk, decision_type, risk_passed, NULL, agents)", persisted=True),
        primary_key=True,
    ),
    Column("desk", Text, nullable=False),
    Column("decision_type", Text, nullable=False),
    Column("risk_passed", Boolean),
    Column("agents", JSONB, nullable=False),
)


def decision_group(*, symbol: bool = False, agents: bool = False) -> ColumnElement[int]:
    """The number of a row's group, as in the indexes: from its desk, type and verdict, and from symbol and voters on request."""
    d = decisions.c
    voters = func.voting_agents(d.agent_votes) if agents else null()
    return func.decision_group(d.desk, d.decision_type, d.risk_passed, d.symbol if symbol else null(), voters)


# A page reads along one of these indexes for each group that its filters allow, however rare their combination is. No index
# holds the id, which is four times as long as the rest: rows of the same moment are sorted when they are read.
HAS_SYMBOL = decisions.c.symbol.is_not(None)
HAS_VOTES = literal_column("agent_votes <> '{}'::jsonb", Boolean)
Index("decisions_of_desk", decisions.c.desk, decisions.c.timestamp)
Index("decisions_of_group", decision_group(), decisions.c.timestamp)
Index("decisions_of_symbol", decision_group(symbol=True), decisions.c.timestamp, postgresql_where=HAS_SYMBOL)
Index("decisions_of_voters", decision_group(agents=True), decisions.c.timestamp, postgresql_where=HAS_VOTES)
Index(
    "decisions_of_voters_and_symbol",
    decision_group(symbol=True, agents=True),
    decisions.c.timestamp,
    postgresql_where=and_(HAS_SYMBOL, HAS_VOTES),
)
Index("decisions_of_command", decisions.c.command_id, postgresql_where=decisions.c.command_id.is_not(None))
IS_TOLD = literal_column("decision_type IN ('control', 'risk_action')", Boolean)
Index("decisions_as_written", decisions.c.desk, decisions.c.written, postgresql_where=IS_TOLD)

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
    # The order's id at the venue, if known.
    Column("venue_order_id", Identifier),
    Column("time_in_force", Text),
)
Index("instructions_by_venue_order", instructions.c.desk, instructions.c.venue_order_id)
Index("instructions_by_time", instructions.c.desk, instructions.c.prepared_at, instructions.c.instruction_id)
Index("instructions_by_command", instructions.c.command_id)

# One row per desk: whether it was ever started, and the second copy of the kill's latch.
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

# Every kill that was ever written to a desk's row, and the restart that cleared it. It tells a late write from a new kill.
kills = Table(
    "kills",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("kill_id", Identifier, primary_key=True),
    Column("kill_number", BigInteger, nullable=False),
    Column("cleared_by", Identifier),
)

# The paper venue. It is a separate system that shares the database.
PAPER = "paper"

paper_accounts = Table(
    "accounts",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("balance", Exact, nullable=False),
    Column("opening_balance", Exact, nullable=False),
    schema=PAPER,
)

# The row is also the lock of the desk's whole account: every change is made under it.
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
    # None for the venue's own orders: liquidations, which do not expire.
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
    # None if an older version wrote the fill.
    Column("market_time", Moment),
    schema=PAPER,
)
Index("fills_by_time", paper_fills.c.desk, paper_fills.c.filled_at, paper_fills.c.fill_id)
# The sum of a bar's fills is the part of its volume that the account has used.
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

paper_totals = Table(
    "totals",
    metadata,
    Column("desk", Text, primary_key=True),
    # The totals include every record up to this moment.
    Column("through", Moment, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("start", Text, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("state", JSONB, nullable=False),
    schema=PAPER,
)

# Which desk trades on an account: one at a time (`storage.claims`). `account` is the fingerprint of its id.
claims = Table(
    "claims",
    metadata,
    Column("exchange", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("desk", Text, nullable=False),
    Column("claimed_at", Moment, nullable=False),
)

# What a real account did, according to the exchange (`storage.books`).
LIVE = "live"

live_books = Table(
    "books",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("exchange", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("opened_at", Moment, nullable=False),
    # The worker that reads at the exchange, and until when no other one does.
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
    # None for what the fills show already: fees and realised profits.
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

live_totals = paper_totals.to_metadata(metadata, schema=LIVE)

# What a desk's account was worth, one row per cycle (`storage.equity`); exposures are fractions of equity.
equity = Table(
    "equity",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("time", Moment, primary_key=True),
    Column("equity", Exact, nullable=False),
    Column("balance", Exact, nullable=False),
    Column("drawdown", Exact, nullable=False),
    Column("gross_exposure", Exact, nullable=False),
    Column("net_exposure", Exact, nullable=False),
    Column("leverage", Exact, nullable=False),
    # Mark prices by symbol, as texts.
    Column("prices", JSONB, nullable=False),
)

# The times in `equity` of each hour's extremes: curves over months are drawn from these.
equity_hours = Table(
    "equity_hours",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("hour", Moment, primary_key=True),
    Column("lowest", Exact, nullable=False),
    Column("lowest_time", Moment, nullable=False),
    Column("highest", Exact, nullable=False),
    Column("highest_time", Moment, nullable=False),
)

# The audit chain (`storage.audit`): one per desk, with all that must be provable. `audit_append` (migration 0016) writes it.
audit = Table(
    "audit",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Identifier, nullable=False),
    # Canonical JSON. The hash is computed over this exact text.
    Column("body", Text, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)
Index("audit_by_time", audit.c.at, postgresql_using="brin")
Index("audit_by_subject", audit.c.subject)

# The end of each chain, to append there quickly, and to detect that a chain was cut off.
audit_heads = Table(
    "audit_heads",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# Entries that could not be chained when they were written; the next append begins with them.
audit_waiting = Table(
    "audit_waiting",
    metadata,
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("desk", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Identifier, nullable=False),
    Column("body", Text, nullable=False),
    Column("why", Text, nullable=False),
)
Index("audit_waiting_of_desk", audit_waiting.c.desk, audit_waiting.c.number)

# Signed checkpoints, exactly as they were printed (`storage.audit.checkpoints`).
audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("at", Moment, primary_key=True),
    Column("public_key", Text, primary_key=True),
    Column("text", Text, nullable=False),
)

# How far the workers have verified each chain (`storage.audit.watching`). Two rows per desk: one follows the new rows, and one
# (`again`) goes over all rows, again and again.
audit_watch = Table(
    "audit_watch",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("again", Boolean, primary_key=True),
    # The last row that was found whole; its hash is NULL if it is taken as it is.
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary),
    # Rows of instructions up to `seq` that a newer row has to follow.
    Column("unsettled", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    # Whether the last latch up to `seq` was set; NULL if no row says so.
    Column("latched", Boolean),
    Column("began_at", Moment, nullable=False),
    Column("looked_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("at_end", Boolean, nullable=False, server_default=text("false")),
    # What is wrong after `seq`, since when, and how many checks in a row have found it.
    Column("fault_kind", Text),
    Column("fault_seq", BigInteger),
    Column("fault_what", Text),
    Column("fault_at", Moment),
    Column("fault_times", Integer, nullable=False, server_default=text("0")),
    # The row up to which a person has accepted the faults, and when.
    Column("accepted_seq", BigInteger, nullable=False, server_default=text("0")),
    Column("accepted_at", Moment),
)
Index("audit_watch_looked", audit_watch.c.looked_at)
Index("audit_watch_faults", audit_watch.c.desk, postgresql_where=audit_watch.c.fault_kind.isnot(None))

# How far the log's tables have been searched for rows that are not in the chain (`storage.audit.unproved`), and what was found.
audit_tables = Table(
    "audit_tables",
    metadata,
    Column("source", Text, primary_key=True),
    # The id that was looked at last; empty at the beginning of a lap.
    Column("after", Identifier, nullable=False, server_default=""),
    Column("looked_at", Moment),
    Column("ended_at", Moment),
)
audit_unproved = Table(
    "audit_unproved",
    metadata,
    # One such row is reported.
    Column("desk", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("id", Identifier, nullable=False),
    Column("at", Moment, nullable=False),
    # How many checks in a row have found it.
    Column("times", Integer, nullable=False),
)

# Notices: each is one event for one channel (`storage.notices`).
notices = Table(
    "notices",
    metadata,
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("desk", Text, nullable=False),
    Column("event_id", Identifier, nullable=False),
    Column("channel", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("text", Text, nullable=False),
    # The same for all notices of one message.
    Column("sent_at", Moment),
)
Index("notices_of_event", notices.c.desk, notices.c.event_id, notices.c.channel, unique=True)
Index(
    "notices_waiting", notices.c.desk, notices.c.channel, notices.c.number, postgresql_where=notices.c.sent_at.is_(None)
)
Index("notices_sent", notices.c.desk, notices.c.channel, notices.c.kind, notices.c.sent_at)

# The process that sends to a channel now, and when the channel may be tried again after a failure.
notice_channels = Table(
    "notice_channels",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("channel", Text, primary_key=True),
    # In `decisions.written`: no event up to this number is sent.
    Column("begun", BigInteger, nullable=False),
    # When a process last looked for this channel's events, to about a minute.
    Column("looked_at", Moment, nullable=False),
    Column("held_by", Text),
    Column("held_until", Moment),
    Column("failures", Integer, nullable=False),
    Column("not_before", Moment),
    Column("last_error", Text),
)

# How far a desk's events have been noticed.
notice_desks = Table(
    "notice_desks",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("begun_at", Moment, nullable=False),
    # In `decisions.written`: nothing up to `begun` is sent; everything up to `read` is noted.
    Column("begun", BigInteger, nullable=False),
    Column("read", BigInteger, nullable=False),
    Column("started_at", Moment),
    # The newest cycle that any process saw (the coordinator's clock), and when it was seen (the database's clock).
    Column("cycle_at", Moment),
    Column("cycle_seen_at", Moment),
    Column("cycle_seconds", Double, nullable=False),
    Column("silent_since", Moment),
    # The newest day that has a summary or is to have none.
    Column("summarised", Date, nullable=False),
)

# Keys of the API (`storage.keys`). `desks`: NULL for every desk; `digest`: SHA-256 of the secret. Rows are never deleted.
keys = Table(
    "keys",
    metadata,
    Column("key_id", Identifier, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("desks", ARRAY(Text)),
    Column("created_at", Moment, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("revoked_by", Text),
    Column("last_used_at", Moment),
    # A key with an unknown role could do nothing; an empty list of desks would mean no desk at all.
    CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="known_role"),
    CheckConstraint("cardinality(desks) > 0", name="some_desk"),
)
Index("keys_by_name", keys.c.name)
