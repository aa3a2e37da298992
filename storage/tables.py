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
    # Facts of the row, for notifications; None where an older version wrote it.
    Column("command", Text),
    Column("result", Text),
    Column("source", Text),
    # The order in which rows were written, which is not that of their timestamps.
    Column("written", BigInteger, server_default=text("nextval('decisions_written')")),
)

# Who voted in rows of one desk, type and verdict: each set of agents once. A trigger of `decisions` keeps it (migration 0010).
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
    """The number of a row's group, as the indexes have it: its desk, type and verdict, and what else is asked for."""
    d = decisions.c
    voters = func.voting_agents(d.agent_votes) if agents else null()
    return func.decision_group(d.desk, d.decision_type, d.risk_passed, d.symbol if symbol else null(), voters)


# One walk along an index for each group that a page's filters leave, however rare their combination. None holds the id, which
# is four times as long as the rest: rows of the same moment are sorted when they are read.
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
    # The order's id at the venue, where the venue has told it.
    Column("venue_order_id", Identifier),
    Column("time_in_force", Text),
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

paper_totals = Table(
    "totals",
    metadata,
    Column("desk", Text, primary_key=True),
    # Every record up to this moment is in it.
    Column("through", Moment, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("start", Text, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("state", JSONB, nullable=False),
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

live_totals = paper_totals.to_metadata(metadata, schema=LIVE)

# What a desk's account was worth, a row a cycle (`storage.equity`); exposures are fractions of equity.
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
    # Marks by symbol, as texts.
    Column("prices", JSONB, nullable=False),
)

# Where in `equity` the extremes of each hour are: a curve over months is drawn from these.
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

# What one believes (`storage.audit`): a chain a desk, of all that must be provable. `audit_append` (migration 0016) writes it.
audit = Table(
    "audit",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Identifier, nullable=False),
    # Canonical JSON, exact text: the hash is over it.
    Column("body", Text, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)
Index("audit_by_time", audit.c.at, postgresql_using="brin")
Index("audit_by_subject", audit.c.subject)

# Where the next link goes: a convenience, and what tells that a chain was cut off.
audit_heads = Table(
    "audit_heads",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# Entries that could not be chained when they were written; the next append takes them first.
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

# How far the workers' running verification is (`storage.audit.watching`): two rows a desk, one that follows the new rows, and
# one (`again`) that goes over all of them again and again.
audit_watch = Table(
    "audit_watch",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("again", Boolean, primary_key=True),
    # The last row that was found whole; NULL where its hash is to be believed.
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary),
    # Rows of instructions up to there whose newest row is still to come.
    Column("unsettled", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    # Whether the last latch up to there was set; NULL where no row says so.
    Column("latched", Boolean),
    Column("began_at", Moment, nullable=False),
    Column("looked_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("at_end", Boolean, nullable=False, server_default=text("false")),
    # What is wrong after `seq`, since when, and in how many looks one after the other.
    Column("fault_kind", Text),
    Column("fault_seq", BigInteger),
    Column("fault_what", Text),
    Column("fault_at", Moment),
    Column("fault_times", Integer, nullable=False, server_default=text("0")),
    # Up to there a person has accepted what is wrong, and when.
    Column("accepted_seq", BigInteger, nullable=False, server_default=text("0")),
    Column("accepted_at", Moment),
)
Index("audit_watch_looked", audit_watch.c.looked_at)
Index("audit_watch_faults", audit_watch.c.desk, postgresql_where=audit_watch.c.fault_kind.isnot(None))

# How far the tables of the log are looked through for rows without a link (`storage.audit.unproved`), and what was found.
audit_tables = Table(
    "audit_tables",
    metadata,
    Column("source", Text, primary_key=True),
    # The last id that was looked at; empty where a lap begins.
    Column("after", Identifier, nullable=False, server_default=""),
    Column("looked_at", Moment),
    Column("ended_at", Moment),
)
audit_unproved = Table(
    "audit_unproved",
    metadata,
    # One row is enough to tell of.
    Column("desk", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("id", Identifier, nullable=False),
    Column("at", Moment, nullable=False),
    # In how many looks one after the other.
    Column("times", Integer, nullable=False),
)

# Notices: one event for one channel each (`storage.notices`).
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
    # Of notices that were told in one message the same.
    Column("sent_at", Moment),
)
Index("notices_of_event", notices.c.desk, notices.c.event_id, notices.c.channel, unique=True)
Index(
    "notices_waiting", notices.c.desk, notices.c.channel, notices.c.number, postgresql_where=notices.c.sent_at.is_(None)
)
Index("notices_sent", notices.c.desk, notices.c.channel, notices.c.kind, notices.c.sent_at)

# Who sends to a channel at the moment, and since when it takes nothing.
notice_channels = Table(
    "notice_channels",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("channel", Text, primary_key=True),
    # `decisions.written`: up to there nothing is told.
    Column("begun", BigInteger, nullable=False),
    # When somebody last looked for this channel, give or take a minute.
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
    # `decisions.written`: up to there nothing is told, and up to there everything is noted.
    Column("begun", BigInteger, nullable=False),
    Column("read", BigInteger, nullable=False),
    Column("started_at", Moment),
    # The newest cycle that anybody saw, and when; by whose clock each is, `storage.notices` says.
    Column("cycle_at", Moment),
    Column("cycle_seen_at", Moment),
    Column("cycle_seconds", Double, nullable=False),
    Column("silent_since", Moment),
    # The newest day that was told in a summary, or that is not to be told.
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
    # A role that nobody knows would be refused all; an empty list of desks would be one for none.
    CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="known_role"),
    CheckConstraint("cardinality(desks) > 0", name="some_desk"),
)
Index("keys_by_name", keys.c.name)
