"""A small exchange in memory, as far as the adapter can see one: positions, resting orders on two markets, a history."""

import asyncio
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

D = Decimal
NONE = D(0)
DAY = 86_400_000
STEP, TICK = D("0.001"), D("0.1")
MARKS = {"BTCUSDT": D(60_000), "ETHUSDT": D(3_000), "DOGEUSDT": D("0.2")}


class Refusal(Exception):
    """The exchange says no, with an HTTP status; its own code and text never reach a client."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


@dataclass
class FakeOrder:
    """An order as the exchange keeps it."""

    order_id: int
    symbol: str
    side: str
    order_type: str
    quantity: Decimal
    price: Decimal | None
    time_in_force: str
    reduce_only: bool
    status: str = "NEW"
    executed: Decimal = NONE
    average: Decimal = NONE
    time_ms: int = field(default_factory=lambda: int(time.time() * 1000))

    @property
    def is_open(self) -> bool:
        return self.status in ("NEW", "PARTIALLY_FILLED")

    @property
    def signed(self) -> int:
        return 1 if self.side == "BUY" else -1

    def row(self) -> dict[str, Any]:
        """As the exchange writes it: numbers are strings."""
        return {
            "orderId": self.order_id,
            "clientOrderId": f"x{self.order_id}",
            "symbol": self.symbol,
            "side": self.side,
            "positionSide": "BOTH",
            "type": self.order_type,
            "origQty": str(self.quantity),
            "executedQty": str(self.executed),
            "avgPrice": f"{self.average:.5f}",
            "price": str(self.price or 0),
            "status": self.status,
            "timeInForce": self.time_in_force,
            "reduceOnly": self.reduce_only,
            "time": self.time_ms,
            "updateTime": self.time_ms,
        }


@dataclass
class Habits:
    """What exchanges of this family differ in, and may do to an order."""

    # -1106: `timeInForce` sent with MARKET.
    strict_time_in_force: bool = False
    # MARKET and IOC answer NEW and fill this much later.
    fills_after_seconds: float | None = None
    # An order fills at most so much at once.
    fills_at_most: str | None = None
    # An order fills by this part of it, in whole steps, and ends.
    fills_part: str | None = None
    # An oversized reduce-only order is refused, not cut.
    refuses_oversized: bool = False
    hedge: bool = False
    # Cancel-all is answered and does nothing.
    ignores_cancels: bool = False
    # What a fill costs, as a fraction of its value, and whether the list of trades writes that with a minus.
    fee_rate: str = "0.0004"
    fees_are_negative: bool = False
    # Of more rows than a page holds the newest are listed, in place of the oldest.
    lists_newest: bool = False
    # The most rows of one page, whatever is asked for.
    page_rows: int = 1000
    # Positions that are zero are not listed, as in later versions of this family.
    lists_held_only: bool = False
    can_trade: bool = True
    # symbol -> its status in the exchange's list.
    statuses: dict[str, str] = field(default_factory=dict)


class Exchange:
    """One account."""

    def __init__(self) -> None:
        self.marks = dict(MARKS)
        self.wallet = D("10000.5")
        self.positions: dict[str, Decimal] = {}
        self.entries: dict[str, Decimal] = {}
        self.trades: list[dict[str, Any]] = []
        self.ledger: list[dict[str, Any]] = []
        self.orders: list[FakeOrder] = []
        self.spot_orders: list[FakeOrder] = []
        self.habits = Habits()
        self._ids = itertools.count(1000)
        self._later: set[asyncio.Task[None]] = set()

    def position(self, symbol: str) -> Decimal:
        return self.positions.get(symbol, D(0))

    def open_orders(self, symbol: str | None = None, spot: bool = False) -> list[FakeOrder]:
        listed = self.spot_orders if spot else self.orders
        return [order for order in listed if order.is_open and symbol in (None, order.symbol)]

    def known(self, symbol: str | None) -> None:
        if symbol is not None and symbol not in self.marks:
            raise Refusal(400)

    def rest(self, symbol: str, spot: bool = False, **changes: Any) -> FakeOrder:
        """A resting order that nobody here sent."""
        facts: dict[str, Any] = {
            "side": "BUY",
            "order_type": "LIMIT",
            "quantity": D(1),
            "price": D(1),
            "time_in_force": "GTC",
        }
        order = FakeOrder(next(self._ids), symbol, **(facts | {"reduce_only": False} | changes))
        (self.spot_orders if spot else self.orders).append(order)
        return order

    def stranger(self, symbol: str, side: str, quantity: str) -> FakeOrder:
        """A market order that nobody here sent."""
        return self.place({"symbol": symbol, "side": side, "order_type": "MARKET", "quantity": quantity})

    def cancel_all(self, symbol: str, spot: bool = False) -> None:
        self.known(symbol)
        for order in [] if self.habits.ignores_cancels else self.open_orders(symbol, spot):
            order.status = "CANCELED"

    def cancel(self, symbol: str, order_id: int) -> FakeOrder:
        """One futures order; an exchange of this family knows no order to cancel that is over."""
        found = [order for order in self.open_orders(symbol) if order.order_id == order_id]
        if not found:
            raise Refusal(400)
        if not self.habits.ignores_cancels:
            found[0].status = "CANCELED"
        return found[0]

    def place(self, arguments: dict[str, Any]) -> FakeOrder:
        """A new futures order, as POST /fapi/v1/order takes it."""
        order = self._accepted(arguments)
        self.orders.append(order)
        if self.habits.fills_after_seconds is not None and order.time_in_force != "GTX":
            task = asyncio.create_task(self._match_later(order, self.habits.fills_after_seconds))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
        else:
            self._match(order)
        return order

    def _accepted(self, arguments: dict[str, Any]) -> FakeOrder:
        self.known(arguments["symbol"])
        written = [str(arguments[name]) for name in ("quantity", "price") if arguments.get(name) is not None]
        quantity = D(written[0])
        strict = self.habits.strict_time_in_force and arguments["order_type"] == "MARKET"
        halted = self.habits.statuses.get(arguments["symbol"], "TRADING") != "TRADING"
        unfit = any("e" in number for number in written) or quantity <= 0 or quantity % STEP
        if strict or unfit or halted or self.habits.hedge:
            raise Refusal(400)
        order = FakeOrder(
            next(self._ids), arguments["symbol"], arguments["side"], arguments["order_type"], quantity,
            D(written[1]) if len(written) > 1 else None, arguments.get("time_in_force", "GTC"),
            arguments.get("reduce_only", False),
        )  # fmt: skip
        if order.reduce_only:
            self._reduces(order)
        return order

    def _reduces(self, order: FakeOrder) -> None:
        held = self.position(order.symbol) * -order.signed
        if held <= 0 or (order.quantity > held and self.habits.refuses_oversized):
            raise Refusal(400)
        order.quantity = min(order.quantity, held)

    async def _match_later(self, order: FakeOrder, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._match(order)

    def _match(self, order: FakeOrder) -> None:
        mark = self.marks[order.symbol]
        crosses = order.price is None or (order.price - mark) * order.signed >= 0
        if crosses and order.time_in_force != "GTX":
            most = D(self.habits.fills_at_most or order.quantity)
            if self.habits.fills_part:
                most = max(STEP, order.quantity * D(self.habits.fills_part) // STEP * STEP)
            self._fill(order, min(order.quantity, most), mark)
        elif crosses or order.time_in_force in ("IOC", "FOK"):
            order.status = "EXPIRED"

    def _fill(self, order: FakeOrder, quantity: Decimal, price: Decimal) -> None:
        order.executed, order.average = quantity, price
        self.trade(order.symbol, order.side, quantity, price, order.order_id)
        self.positions[order.symbol] = self.position(order.symbol) + quantity * order.signed
        rests = order.order_type == "LIMIT" and order.time_in_force == "GTC"
        partly = "PARTIALLY_FILLED" if rests else "EXPIRED"
        order.status = "FILLED" if quantity == order.quantity else partly

    # --- its own books -------------------------------------------------------------------------------------------------

    def trade(
        self, symbol: str, side: str, quantity: Decimal, price: Decimal, order_id: int, **changes: Any
    ) -> dict[str, Any]:
        """Books a fill: the trade, its money in the ledger and in the wallet. The position is moved by who calls."""
        profit = self._realise(symbol, quantity if side == "BUY" else -quantity, price)
        fee = quantity * price * D(self.habits.fee_rate)
        row = {
            "buyer": side == "BUY", "commission": str(-fee if self.habits.fees_are_negative else fee), "commissionAsset": "USDT",
            "id": next(self._ids), "maker": False, "orderId": order_id, "price": str(price), "qty": str(quantity),
            "quoteQty": str(quantity * price), "realizedPnl": str(profit), "side": side, "positionSide": "BOTH",
            "symbol": symbol, "time": int(time.time() * 1000),
        } | changes  # fmt: skip
        self.trades.append(row)
        of_trade = {"symbol": symbol, "tradeId": str(row["id"]), "time": row["time"]}
        self.book("COMMISSION", -fee, **of_trade)
        if profit:
            self.book("REALIZED_PNL", profit, **of_trade)
        return row

    def book(self, kind: str, amount: Decimal, **changes: Any) -> dict[str, Any]:
        """Moves money, and writes it down."""
        row = {
            "symbol": "", "incomeType": kind, "income": str(amount), "asset": "USDT", "info": kind,
            "time": int(time.time() * 1000), "tranId": str(next(self._ids)), "tradeId": "",
        } | changes  # fmt: skip
        self.wallet += amount
        self.ledger.append(row)
        return row

    def listed(self, rows: list[dict[str, Any]], arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One page, oldest first, of what happened between two moments; seven days at most."""
        now = int(time.time() * 1000)
        start, end = arguments.get("start_time") or now - 7 * DAY, arguments.get("end_time") or now
        if end - start > 7 * DAY:
            raise Refusal(400)
        symbol, most = arguments.get("symbol"), min(arguments.get("limit", 100), self.habits.page_rows)
        found = [row for row in rows if start <= row["time"] <= end and symbol in (None, row["symbol"])]
        found.sort(key=lambda row: row["time"])
        return found[-most:] if self.habits.lists_newest else found[:most]

    def _realise(self, symbol: str, signed: Decimal, price: Decimal) -> Decimal:
        """By the average price of entry, as it is before the position moves."""
        held, entry = self.position(symbol), self.entries.get(symbol, price)
        closing = min(abs(held), abs(signed)) if held * signed < 0 else NONE
        after = held + signed
        if not closing:
            self.entries[symbol] = (held * entry + signed * price) / after if after else price
        elif after * held <= 0:
            self.entries[symbol] = price
        return closing * (price - entry) * (1 if held > 0 else -1)

    # --- as the exchange writes it -----------------------------------------------------------------------------------

    def position_rows(self, symbol: str | None) -> list[dict[str, Any]]:
        self.known(symbol)
        sides = ("LONG", "SHORT") if self.habits.hedge else ("BOTH",)
        return [
            {
                "symbol": name,
                "positionAmt": str(self.position(name) if side != "SHORT" else 0),
                "positionSide": side,
                "entryPrice": str(self.entries.get(name, mark)),
                "markPrice": str(mark),
                "unRealizedProfit": "0.00000000",
                "leverage": "5",
                "updateTime": 0,
            }
            for name, mark in self.marks.items()
            if symbol in (None, name) and (self.position(name) or not self.habits.lists_held_only)
            for side in sides
        ]

    def account_row(self) -> dict[str, Any]:
        positions = [
            {key: row[key] for key in ("symbol", "positionAmt", "positionSide", "entryPrice")}
            for row in self.position_rows(None)
        ]
        resting = [order for order in self.open_orders() if not order.reduce_only]
        return {
            "canTrade": self.habits.can_trade,
            "totalOpenOrderInitialMargin": str(sum((o.quantity * (o.price or 0) / 5 for o in resting), NONE)),
            "totalPositionInitialMargin": str(
                sum((abs(self.position(name)) * mark / 5 for name, mark in self.marks.items()), NONE)
            ),
            "totalWalletBalance": str(self.wallet),
            "totalUnrealizedProfit": "-12.34567891",
            "totalMarginBalance": str(self.wallet - D("12.34567891")),
            "totalMaintMargin": "0.00000000",
            "availableBalance": "9000.00000000",
            "assets": [{"asset": "USDT", "walletBalance": str(self.wallet)}],
            "positions": positions,
        }

    def spot_row(self) -> dict[str, Any]:
        locked = sum((o.quantity * (o.price or 0) for o in self.open_orders(spot=True)), NONE)
        return {"canTrade": True, "balances": [{"asset": "USDT", "free": "100", "locked": str(locked)}]}

    def info_row(self) -> dict[str, Any]:
        filters = [
            {"filterType": "PRICE_FILTER", "minPrice": "0.1", "maxPrice": "1000000", "tickSize": str(TICK)},
            {"filterType": "LOT_SIZE", "minQty": str(STEP), "maxQty": "1000", "stepSize": str(STEP)},
            {"filterType": "MARKET_LOT_SIZE", "minQty": str(STEP), "maxQty": "120", "stepSize": str(STEP)},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
            {"filterType": "PERCENT_PRICE", "multiplierUp": "1.0300", "multiplierDown": "0.9700"},
        ]
        symbols = [
            {
                "symbol": name,
                "status": self.habits.statuses.get(name, "TRADING"),
                "liquidationFee": "0.010000",
                "filters": filters,
                "OrderType": ["LIMIT", "MARKET"],
                "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
            }
            for name in self.marks
        ]
        return {"timezone": "UTC", "symbols": symbols}
