"""Readings of the account that are facts: what one answer says is held against another source before it counts.

The official server makes an empty list of an empty answer, so that one bad moment of the exchange reads as "no position".
So two endpoints have to say what is held, and a second source has to confirm what is gone: an order by its own status, a
position by a row of its own. Sources that contradict each other are read again, since a fill may come between two calls. What
remains is a doubt: the reading then shows whatever any source shows, and proves nothing.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

import structlog

from activities.venues.aster.caller import Caller
from activities.venues.aster.readings import (
    AccountSeen,
    Holding,
    account_of,
    holdings_of,
    locked_of,
    open_order_of,
    orders_of,
    wallet_of,
)
from activities.venues.aster.results import Row, Unreadable
from activities.venues.port import VenueError, VenueRateLimited, VenueRefused
from domain.market import Account, Known, Market, OpenOrder, RestingOrder
from domain.values import ZERO

# A fill between two calls looks like a contradiction for a moment.
LOOKS_AGAIN_SECONDS = (0.05, 0.3)
# Of what every source leaves out nobody says that it is gone: that counts once it has been so for this long.
GONE_AFTER_SECONDS = 2.0
# Between the two lists without an order that a kill is verified by.
SECOND_LOOK_SECONDS = 0.3
# What confirms a reading must not take longer than the reading may.
CONFIRM_SECONDS = 2.0
MOST_ORDERS_ASKED = 100
MOST_POSITIONS_ASKED = 20
REMEMBERED = 2000
# A balance moves this far with fills, funding and fees; farther only with a second source.
BALANCE_MOVES = Decimal("0.05")
STILL_OPEN = ("NEW", "PARTIALLY_FILLED")
_ASKS = {Market.FUTURES: "get_order", Market.SPOT: "get_spot_order"}


log = structlog.get_logger("aster")


class AccountReading(NamedTuple):
    """What the account holds and what rests. With `doubts` it shows whatever any source shows, and is no fact."""

    holdings: Mapping[str, Holding]
    open_orders: list[OpenOrder]
    account: Account
    doubts: list[str]


class Seen(NamedTuple):
    """The answers of one round."""

    holdings: Mapping[str, Holding]
    futures: list[OpenOrder]
    spot: list[OpenOrder]
    account: AccountSeen


class AccountReader:
    """Reads one account. It remembers which orders are known to be gone, and since when something is missing everywhere."""

    def __init__(self, caller: Caller, clock: Callable[[], float] = time.monotonic) -> None:
        self._caller = caller
        self._clock = clock
        self._over: OrderedDict[RestingOrder, None] = OrderedDict()
        self._missing: dict[str, float] = {}
        self._jumped_to: tuple[Decimal, float] | None = None

    async def read(self, known: Known) -> AccountReading:
        """One round of calls, and what confirms it. Raises VenueError."""
        seen = await self._agreed(await self._seen())
        (listed, hidden), (lost, unlisted), (resting, untold), jumped = await asyncio.gather(
            self._looked_twice(seen, known),
            self._lost_positions(seen, known),
            self._lost_orders(seen, known),
            self._jumped(seen.account, known),
        )
        holdings = {**_shown(seen), **lost}
        doubts = [*_contradictions(seen), *hidden, *unlisted, *untold, *jumped]
        if doubts:
            log.warning("a reading of the account is no fact", doubts=len(doubts))
        orders = {(order.market, order.order_id): order for order in [*resting, *listed]}
        return AccountReading(holdings, list(orders.values()), seen.account.account, doubts)

    async def held(self, symbol: str) -> Holding | None:
        """One symbol's position; None where nothing is held. A list without a row of it says nothing: then the account's does."""
        found = holdings_of(await self._caller.call("get_positions", symbol)).get(symbol)
        if found is not None:
            return found
        account = account_of(await self._caller.call("get_account_v4"))
        quantity = account.held.get(symbol, ZERO)
        return Holding(symbol, quantity, ZERO, None) if quantity else None

    # --- positions -------------------------------------------------------------------------------------------------------

    async def _seen(self) -> Seen:
        call = self._caller.call
        held, futures, spot, account = await asyncio.gather(
            call("get_positions"), call("get_open_orders"), call("get_spot_open_orders"), call("get_account_v4")
        )
        return Seen(
            holdings_of(held),
            orders_of("get_open_orders", futures, Market.FUTURES),
            orders_of("get_spot_open_orders", spot, Market.SPOT),
            account_of(account),
        )

    async def _agreed(self, seen: Seen) -> Seen:
        """The round, or a later one where its sources contradicted each other."""
        for pause in LOOKS_AGAIN_SECONDS:
            if not _contradictions(seen):
                break
            await asyncio.sleep(pause)
            seen = await self._seen_again(seen)
        return seen

    async def _seen_again(self, seen: Seen) -> Seen:
        call, listed = self._caller.call, not _hides_orders(seen)
        held, account, futures = await asyncio.gather(
            call("get_positions", seconds=CONFIRM_SECONDS),
            call("get_account_v4", seconds=CONFIRM_SECONDS),
            _nothing() if listed else call("get_open_orders", seconds=CONFIRM_SECONDS),
        )
        orders = seen.futures if listed else orders_of("get_open_orders", futures, Market.FUTURES)
        return seen._replace(holdings=holdings_of(held), account=account_of(account), futures=orders)

    async def _lost_positions(self, seen: Seen, known: Known) -> tuple[dict[str, Holding], list[str]]:
        """What the desk held and no source lists any more, not even as zero; and why that is no fact yet."""
        listed = {*seen.holdings, *seen.account.held}
        lost = [symbol for symbol in known.held if symbol not in listed]
        self._missing = {symbol: since for symbol, since in self._missing.items() if symbol not in listed}
        told = await asyncio.gather(*(self._stated(symbol) for symbol in lost[:MOST_POSITIONS_ASKED]))
        stated = dict(zip(lost, told, strict=False))
        left = {symbol: self._left(symbol, known.held[symbol], stated.get(symbol)) for symbol in lost}
        found = {symbol: holding for symbol, holding in left.items() if holding is not None}
        return found, [_missing_text(symbol, stated.get(symbol)) for symbol in found]

    async def _stated(self, symbol: str) -> Holding | None:
        """A row of the symbol's own, which says zero where nothing is held."""
        try:
            return holdings_of(await self._caller.call("get_positions", symbol, seconds=CONFIRM_SECONDS)).get(symbol)
        except VenueRateLimited:
            raise
        except VenueError:
            return None

    def _left(self, symbol: str, before: Decimal, stated: Holding | None) -> Holding | None:
        """What is taken for held of a position that is missing everywhere; None once it is known to be gone."""
        if stated is not None and not stated.quantity:
            return None
        since = self._missing.setdefault(symbol, self._clock())
        if stated is None and self._clock() - since >= GONE_AFTER_SECONDS:
            return None
        return stated or Holding(symbol, before, ZERO, None)

    # --- open orders -----------------------------------------------------------------------------------------------------

    async def _looked_twice(self, seen: Seen, known: Known) -> tuple[list[OpenOrder], list[str]]:
        """The orders that are listed.

        A list without one ends a kill only where it is empty a moment later, too, and no spot balance is locked.
        """
        ends = known.verifies or (known.flattens and not any(h.quantity for h in _shown(seen).values()))
        if not ends or seen.futures or seen.spot:
            return [*seen.futures, *seen.spot], []
        await asyncio.sleep(SECOND_LOOK_SECONDS)
        futures, spot, locked = await asyncio.gather(
            self._caller.call("get_open_orders"), self._caller.call("get_spot_open_orders"), self._locked()
        )
        of_spot = orders_of("get_spot_open_orders", spot, Market.SPOT)
        told = f"get_spot_open_orders lists none, though {', '.join(locked)} is locked"
        hidden = [told] if locked and not of_spot else []
        return [*orders_of("get_open_orders", futures, Market.FUTURES), *of_spot], hidden

    async def _locked(self) -> list[str]:
        """Assets of which spot orders lock something. None where the venue does not tell: the list is read twice all the same."""
        try:
            return locked_of(await self._caller.call("get_spot_account", seconds=CONFIRM_SECONDS))
        except VenueRateLimited:
            raise
        except VenueError:
            return []

    async def _lost_orders(self, seen: Seen, known: Known) -> tuple[list[OpenOrder], list[str]]:
        """Orders that rested and are not listed any more: still open by their own status, and those nobody tells of."""
        listed = {(order.market, order.symbol, order.order_id) for order in [*seen.futures, *seen.spot]}
        lost = [o for o in known.resting if o not in self._over and (o.market, o.symbol, o.order_id) not in listed]
        told = await asyncio.gather(*(self._status(order) for order in lost[:MOST_ORDERS_ASKED]))
        found = [order for order in told if isinstance(order, OpenOrder)]
        hidden = [
            f"order {o.order_id} of {o.symbol}: open, and {_LISTS[Market(o.market)]} does not list it" for o in found
        ]
        return found, [*hidden, *(str(error) for error in told if isinstance(error, VenueError))]

    async def _status(self, order: RestingOrder) -> OpenOrder | VenueError | None:
        """The order where it is still open, the error where nobody tells, None where it is over."""
        tool = _ASKS[order.market]
        try:
            answer = await self._caller.call(tool, order.symbol, seconds=CONFIRM_SECONDS, order_id=int(order.order_id))
            row = Row(tool, answer)
            if row.text("orderId") != order.order_id:
                raise Unreadable(tool, "it is of another order")
            if row.text("status") in STILL_OPEN:
                return open_order_of(row, order.market)
        except VenueRateLimited:
            raise
        except VenueRefused:
            pass  # The exchange forgets what was canceled a week after it was made: two sources do not know it.
        except VenueError as error:
            return error
        self._is_over(order)
        return None

    def _is_over(self, order: RestingOrder) -> None:
        self._over[order] = None
        while len(self._over) > REMEMBERED:
            self._over.popitem(last=False)

    # --- the balance -----------------------------------------------------------------------------------------------------

    async def _jumped(self, seen: AccountSeen, known: Known) -> list[str]:
        """A balance that is far from the last one is a fact where another endpoint says the same."""
        balance = seen.account.balance
        if known.balance is None or _near(balance, known.balance):
            self._jumped_to = None
            return []
        told = f"the balance went from {known.balance} to {balance}"
        try:
            again = wallet_of(await self._caller.call("get_account_info", seconds=CONFIRM_SECONDS))
        except VenueRateLimited:
            raise
        except VenueError as error:
            return [] if self._lasts(balance) else [f"{told}, and {error}"]
        return [] if _near(again, balance) else [f"{told}, and get_account_info says {again}"]

    def _lasts(self, balance: Decimal) -> bool:
        """Whether the same was read long enough ago already: what counts where there is no second source."""
        if self._jumped_to is None or not _near(balance, self._jumped_to[0]):
            self._jumped_to = (balance, self._clock())
        return self._clock() - self._jumped_to[1] >= GONE_AFTER_SECONDS


_LISTS = {Market.FUTURES: "get_open_orders", Market.SPOT: "get_spot_open_orders"}


def _contradictions(seen: Seen) -> list[str]:
    differing = [
        f"{symbol}: get_positions says {one}, get_account_v4 {other}"
        for symbol, (one, other) in _both(seen).items()
        if one != other
    ]
    hidden = "get_open_orders lists none, though get_account_v4 has margin set aside for open orders"
    return [*differing, *([hidden] if _hides_orders(seen) else [])]


def _both(seen: Seen) -> dict[str, tuple[Decimal, Decimal]]:
    """What each of the two endpoints says of every symbol that either shows as held."""
    one = {symbol: holding.quantity for symbol, holding in seen.holdings.items()}
    other = seen.account.held
    held = _nonzero([*one.items(), *other.items()])
    return {symbol: (one.get(symbol, ZERO), other.get(symbol, ZERO)) for symbol in held}


def _nonzero(quantities: Iterable[tuple[str, Decimal]]) -> list[str]:
    return list(dict.fromkeys(symbol for symbol, quantity in quantities if quantity))


def _shown(seen: Seen) -> dict[str, Holding]:
    """Every holding, those that only the account shows as well. Of two quantities the smaller one that is not zero: closing
    more than is held would be refused."""
    shown = dict(seen.holdings)
    for symbol, told in _both(seen).items():
        quantity = min((each for each in told if each), key=abs)
        shown[symbol] = shown.get(symbol, Holding(symbol, quantity, ZERO, None))._replace(quantity=quantity)
    return shown


def _missing_text(symbol: str, stated: Holding | None) -> str:
    if stated is None:
        return f"{symbol}: held before, and no source says what became of it"
    return f"{symbol}: get_positions says {stated.quantity} when asked for it alone, and lists it nowhere else"


def _hides_orders(seen: Seen) -> bool:
    return not seen.futures and seen.account.order_margin > 0


def _near(one: Decimal, other: Decimal) -> bool:
    return abs(one - other) <= max(abs(other), Decimal(1)) * BALANCE_MOVES


async def _nothing() -> None:
    return None
