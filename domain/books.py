"""A real account's books: what the exchange says was traded, paid and received, and whether it adds up.

A single reading proves nothing here. Two readings must agree before the books open. A difference is reported only after a
second comparison finds the same one. An order counts as somebody else's only if a second look still finds no row of it.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal, localcontext

from pydantic import Field

from domain.accounting import Fill, Fold, Holding, HoldingKey, LedgerEntry, LedgerKind, Portfolio
from domain.health.books_seen import MAX_NAMED, BooksSeen
from domain.trading.instructions import Side
from domain.trading.market import Market
from domain.values import EXACT, ZERO, Moment, Value, iso, plain

QUOTE = "USDT"
"""The asset in which a desk's money is counted."""
EXCHANGE = "aster"
INCOME = "income"
MAX_GAPS = 20
MAX_FOREIGN_ORDERS = 50
REREAD_EVERY = timedelta(hours=1)
REREAD_BACK = timedelta(days=30)
# The exchange's ledger repeats the money of a trade, which its fill already tells.
OF_TRADES = ("COMMISSION", "REALIZED_PNL")
_KINDS = {"FUNDING_FEE": LedgerKind.FUNDING, "TRANSFER": LedgerKind.TRANSFER}


class LiveFill(Fill):
    """A fill as the exchange lists it. `order_id` and `trade_id` are the exchange's ids; `fee` is in `fee_asset`."""

    trade_id: str
    fee_asset: str
    filled_at: Moment

    @property
    def signed(self) -> Decimal:
        """The quantity, positive for a purchase."""
        return self.quantity if self.side is Side.BUY else -self.quantity


class Income(Value):
    """One row of the exchange's own ledger. Amounts that the account received are positive."""

    entry_id: str
    income_type: str
    symbol: str
    asset: str
    amount: Decimal
    trade_id: str | None
    at: Moment

    @property
    def kind(self) -> LedgerKind | None:
        """The kind in our own ledger; None for money that fills already tell."""
        if self.income_type in OF_TRADES:
            return None
        if self.income_type == "INSURANCE_CLEAR":
            return LedgerKind.LIQUIDATION_FEE if self.amount < 0 else LedgerKind.INSURANCE
        return _KINDS.get(self.income_type, LedgerKind.OTHER)


class Held(Value):
    """A position: the signed quantity, and what was paid for it, with the same sign."""

    quantity: Decimal
    cost: Decimal


class ExchangeAccount(Value):
    """The exchange's view of the account: the wallet balance of each asset, and every position by symbol, including empty
    ones."""

    balances: dict[str, Decimal]
    positions: dict[str, Held]


class Sums(Value):
    """What our records add up to since the books were opened.

    `income` sums the exchange's ledger by asset, `quote` our own fills and ledger entries in the quote asset. `traded` is
    by symbol: quantity bought less sold, and its cost less the realised profit.
    """

    income: dict[str, Decimal]
    quote: Decimal
    traded: dict[str, Held]


class Opening(Value):
    """What the account held before the first record."""

    balances: dict[str, Decimal] = Field(default_factory=dict)
    held: dict[str, Held] = Field(default_factory=dict)


class Difference(Value):
    """A difference between the exchange and the sums of our records."""

    what: str
    exchange: Decimal
    records: Decimal

    @property
    def text(self) -> str:
        """The difference with both numbers, for people."""
        return f"{self.what}: {plain(self.exchange):f} at the exchange, {plain(self.records):f} by its records"

    def same_as(self, other: "Difference") -> bool:
        """Whether both differ in the same thing by the same amount. The numbers themselves keep moving."""
        return self.what == other.what and self.exchange - self.records == other.exchange - other.records


class Gap(Value):
    """A period that could not be read completely. `source` is `income` or a symbol."""

    source: str
    since: Moment
    until: Moment
    why: str

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.source} from {iso(self.since)} to {iso(self.until)}: {self.why}"


class Failing(Value):
    """A source that cannot be read at the moment."""

    since: Moment
    why: str


class ForeignOrder(Value):
    """An order at the exchange that this desk did not send: it rests there (`open`), or it has filled."""

    order_id: str
    symbol: str
    open: bool

    @property
    def text(self) -> str:
        """For people."""
        return f"{'open order' if self.open else 'fill of order'} {self.order_id} {self.symbol}"


class BooksState(Value):
    """How far the books have got. `until` says how far each source was read, by the exchange's clock.

    `opening` is None until two readings agree; before that, nothing is known. `unlisted` names trades for which the
    exchange booked money but lists no fill. `suspected` and `suspects` wait for a second look.
    """

    until: dict[str, Moment] = Field(default_factory=dict)
    failing: dict[str, Failing] = Field(default_factory=dict)
    opening: Opening | None = None
    candidate: Opening | None = None
    read_at: Moment | None = None
    compared_at: Moment | None = None
    reread_at: Moment | None = None
    differences: list[Difference] = Field(default_factory=list)
    suspected: list[Difference] = Field(default_factory=list)
    gaps: list[Gap] = Field(default_factory=list)
    unlisted: list[str] = Field(default_factory=list)
    strangers: list[ForeignOrder] = Field(default_factory=list)
    suspects: list[ForeignOrder] = Field(default_factory=list)

    @property
    def facts(self) -> list[str]:
        """Everything that is wrong or missing in these books, for people."""
        found = [difference.text for difference in self.differences]
        found += [f"not whole: {gap.text}" for gap in self.gaps]
        found += [f"not listed: {trade}" for trade in self.unlisted]
        return found + [f"not read since {iso(it.since)}: {name}: {it.why}" for name, it in self.failing.items()]


def with_gap(state: BooksState, gap: Gap) -> BooksState:
    """Adds a gap. If there are too many, the newest are kept."""
    others = [g for g in state.gaps if (g.source, g.since) != (gap.source, gap.since)]
    return state.model_copy(update={"gaps": [*others, gap][-MAX_GAPS:]})


def read_on(state: BooksState, source: str, until: datetime) -> BooksState:
    """Notes that a source was read up to this moment."""
    failing = {name: it for name, it in state.failing.items() if name != source}
    return state.model_copy(update={"until": {**state.until, source: until}, "failing": failing})


def not_read(state: BooksState, source: str, why: str, now: datetime) -> BooksState:
    """Notes that a source could not be read. `since` stays that of the first failure in a row."""
    since = state.failing[source].since if source in state.failing else now
    return state.model_copy(update={"failing": {**state.failing, source: Failing(since=since, why=why)}})


# --- comparing -----------------------------------------------------------------------------------------------------------


def compare(state: BooksState, account: ExchangeAccount, sums: Sums, now: datetime) -> BooksState:
    """Compares the exchange's account with our records: opens the books, or notes where the two differ."""
    if state.opening is None:
        opening = opening_of(account, sums)
        if state.candidate is None or not _agree(state.candidate, opening):
            return state.model_copy(update={"candidate": opening})
        return state.model_copy(update={"opening": opening, "candidate": None, "compared_at": now})
    found = differences(state.opening, account, sums)
    before = [*state.suspected, *state.differences]
    confirmed = [
        d for d in found if any(d.same_as(b) for b in before) or any(d.what == b.what for b in state.differences)
    ]
    return state.model_copy(update={"differences": confirmed, "suspected": found, "compared_at": now})


def differences(opening: Opening, account: ExchangeAccount, sums: Sums) -> list[Difference]:
    """Everything in which the two differ. What the exchange did not report is not compared."""
    found, nothing = [], Held(quantity=ZERO, cost=ZERO)
    with localcontext(EXACT):
        for asset, wallet in sorted(account.balances.items()):
            opened = opening.balances.get(asset, ZERO)
            by_income = opened + sums.income.get(asset, ZERO)
            by_records = opened + sums.quote if asset == QUOTE else by_income
            if wallet != by_records:
                found.append(Difference(what=f"balance {asset}", exchange=wallet, records=by_records))
            elif wallet != by_income:
                what = f"balance {asset} by the exchange's own ledger"
                found.append(Difference(what=what, exchange=wallet, records=by_income))
        for symbol, held in sorted(account.positions.items()):
            ours = opening.held.get(symbol, nothing).quantity + sums.traded.get(symbol, nothing).quantity
            if held.quantity != ours:
                found.append(Difference(what=f"{symbol} futures quantity", exchange=held.quantity, records=ours))
    return found


def opening_of(account: ExchangeAccount, sums: Sums) -> Opening:
    """What the account must have held before the first record for everything to add up."""
    nothing = Held(quantity=ZERO, cost=ZERO)
    held: dict[str, Held] = {}
    with localcontext(EXACT):
        balances = {asset: wallet - sums.income.get(asset, ZERO) for asset, wallet in account.balances.items()}
        for symbol, now in account.positions.items():
            traded = sums.traded.get(symbol, nothing)
            if quantity := now.quantity - traded.quantity:
                held[symbol] = Held(quantity=quantity, cost=now.cost - traded.cost)
    return Opening(balances=balances, held=held)


def _agree(first: Opening, second: Opening) -> bool:
    """Whether money and quantities agree. Costs may differ, since the exchange rounds its entry prices."""
    quantities = [{symbol: held.quantity for symbol, held in it.held.items()} for it in (first, second)]
    return first.balances == second.balances and quantities[0] == quantities[1]


def must_reread(state: BooksState, now: datetime) -> bool:
    """Whether to read everything once more, because something is missing or wrong in what was read only once."""
    wrong = bool(state.differences or state.unlisted)
    return wrong and (state.reread_at is None or now - state.reread_at >= REREAD_EVERY)


def read_again(state: BooksState, now: datetime) -> BooksState:
    """Starts over from a month ago, or from the beginning if that is later. Gaps that still exist will be found again."""
    back = now - REREAD_BACK
    until = {source: min(at, back) for source, at in state.until.items()}
    return state.model_copy(
        update={"until": until, "gaps": [g for g in state.gaps if g.until < back], "reread_at": now}
    )


def look_again(state: BooksState, found: list[ForeignOrder]) -> BooksState:
    """Notes orders that no row explains. They are reported once a second look finds them too."""
    confirmed = [order for order in found if order in state.suspects or order in state.strangers]
    return state.model_copy(
        update={"strangers": confirmed[:MAX_FOREIGN_ORDERS], "suspects": found[:MAX_FOREIGN_ORDERS]}
    )


# --- the account ---------------------------------------------------------------------------------------------------------


def opened(desk: str, opening: Opening) -> Portfolio:
    """A desk's account before its first record."""
    with localcontext(EXACT):
        held = {
            HoldingKey(Market.FUTURES, symbol): Holding(quantity=it.quantity, cost=it.cost)
            for symbol, it in opening.held.items()
        }
        marks = {key.symbol: it.entry_price for key, it in held.items()}
    balance = opening.balances.get(QUOTE, ZERO)
    return Portfolio.opened(desk, balance)._replace(holdings=held, marks=marks)


def fold(start: Fold, records: Iterable[Fill | LedgerEntry]) -> Fold:
    """Adds records in the order of time. The realised profit that the exchange reports is final."""
    for record in records:
        start = start.after(record, record.market_time, _settled)
    return start


def folded(desk: str, opening: Opening, records: Iterable[Fill | LedgerEntry]) -> Portfolio:
    """A desk's account from its records."""
    return fold(Fold(opened(desk, opening)), records).valued()


def _settled(portfolio: Portfolio, record: Fill | LedgerEntry) -> Portfolio:
    """Adds one record. The exchange rounds its entry price, so its profit may differ from ours in the last digits. Balance
    and remaining cost then both follow the exchange's, so equity stays the same."""
    after = portfolio.after(record)
    if not isinstance(record, Fill):
        return after
    before = portfolio.holdings.get(record.key, Holding())
    held = after.holdings[record.key]
    with localcontext(EXACT):
        more = record.realised_profit - (held.realised_profit - before.realised_profit)
        cost = held.cost + more if held.quantity else ZERO
        settled = held.model_copy(update={"cost": cost, "realised_profit": held.realised_profit + more})
        return after._replace(balance=after.balance + more, holdings={**after.holdings, record.key: settled})


# --- what an operator is told ----------------------------------------------------------------------------------------------


def books_seen(state: BooksState | None, holder: str | None, desk: str) -> BooksSeen:
    """What an operator of the desk is told. `holder` is the desk that has claimed its account."""
    holder = holder if holder != desk else None
    if state is None:
        return BooksSeen(holder=holder)
    facts, count = state.facts, len(state.differences)
    foreign = [order.text for order in state.strangers]
    more = [f"{len(foreign) - MAX_NAMED} more"] if len(foreign) > MAX_NAMED else []
    return BooksSeen(
        differences=facts[:count][:MAX_NAMED],
        gaps=facts[count:][:MAX_NAMED],
        strangers=[*foreign[:MAX_NAMED], *more],
        holder=holder,
    )
