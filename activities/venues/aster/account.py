"""Reads the account so that the result is a fact: one answer is checked against another source before it counts.

The official server turns an empty answer into an empty list, so one bad moment of the exchange looks like "no position".
So two endpoints must agree on what is held, and a second source must confirm what is gone: an order by its own status, a
position by its own row. Sources that contradict each other are read again, since a fill may come between two calls. If they
still differ, that is a doubt: the reading then shows whatever any source shows, and proves nothing.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from activities.venues.aster.answers import BadRequest
from activities.venues.aster.caller import Caller
from activities.venues.aster.readings import (
    AccountSeen,
    ExchangePosition,
    account_of,
    holdings_of,
    locked_of,
    open_order_of,
    orders_of,
    wallet_of,
)
from activities.venues.aster.results import Row, Unreadable
from activities.venues.port import HedgeMode, VenueError, VenueRateLimited
from domain.trading.market import Account, Known, Market, OpenOrder, RestingOrder
from domain.values import ZERO, printable

# A fill between two calls looks like a contradiction for a moment, so contradictions are read again after these pauses.
LOOKS_AGAIN_SECONDS = (0.05, 0.3)
# If every source leaves something out, none of them says that it is gone. It then counts as gone after this long.
GONE_AFTER_SECONDS = 2.0
# Between the two empty lists of orders that verify a kill.
SECOND_LOOK_SECONDS = 0.3
# A call that confirms a reading must not exceed the reading's own time.
CONFIRM_SECONDS = 2.0
MOST_ORDERS_ASKED = 100
MOST_POSITIONS_ASKED = 20
REMEMBERED = 2000
# Fills, funding and fees may move the balance this far. A larger move needs a second source.
BALANCE_MOVES = Decimal("0.05")
STILL_OPEN = ("NEW", "PARTIALLY_FILLED")
# The statuses that end an order. Any other one may be of an order that still fills: spot has PENDING_NEW and PENDING_CANCEL.
OVER = ("FILLED", "CANCELED", "EXPIRED", "EXPIRED_IN_MATCH", "REJECTED")
T = TypeVar("T")
_ASKS = {Market.FUTURES: "get_order", Market.SPOT: "get_spot_order"}
_LISTS = {Market.FUTURES: "get_open_orders", Market.SPOT: "get_spot_open_orders"}


log = structlog.get_logger("aster")


class AccountSnapshot(NamedTuple):
    """The account's positions and open orders. With `doubts` it shows whatever any source shows, and is not a fact."""

    holdings: Mapping[str, ExchangePosition]
    open_orders: list[OpenOrder]
    account: Account
    doubts: list[str]


class AccountAnswers(NamedTuple):
    """The answers of one round of calls."""

    holdings: Mapping[str, ExchangePosition]
    futures: list[OpenOrder]
    spot: list[OpenOrder]
    account: AccountSeen


class MissingPosition(NamedTuple):
    """A position that was held and that no list shows: since when it is missing, when the exchange was last asked for it alone,
    and what it said then. Times are of the reader's clock."""

    since: float
    asked_at: float = -math.inf
    stated: ExchangePosition | VenueError | None = None


class AccountReader:
    """Reads one account. Remembers which orders are gone, and since when something has been missing in every source."""

    def __init__(self, caller: Caller, clock: Callable[[], float] = time.monotonic) -> None:
        self._caller = caller
        self._clock = clock
        self._over: OrderedDict[RestingOrder, None] = OrderedDict()
        self._missing: dict[str, MissingPosition] = {}
        self._jumped_to: tuple[Decimal, float] | None = None

    async def read(self, known: Known) -> AccountSnapshot:
        """Makes one round of calls, and those that confirm it. Raises VenueError."""
        seen, unread = await self._round(known)
        if unread:
            log.warning("a reading of the account is doubtful", doubts=len(unread))
            return AccountSnapshot(_holdings(seen), [*seen.futures, *seen.spot], seen.account.account, unread)
        seen = await self._agreed(seen)
        (listed, hidden), (lost, unlisted), (resting, untold), jumped = await asyncio.gather(
            self._looked_twice(seen, known),
            self._lost_positions(seen, known),
            self._lost_orders(seen, known),
            self._balance_doubts(seen.account, known),
        )
        doubts = [*_contradictions(seen), *hidden, *unlisted, *untold, *jumped]
        if doubts:
            log.warning("a reading of the account is doubtful", doubts=len(doubts))
        # An exchange's order id may be unique only within its symbol.
        orders = {(order.market, order.symbol, order.order_id): order for order in [*resting, *listed]}
        return AccountSnapshot({**_holdings(seen), **lost}, list(orders.values()), seen.account.account, doubts)

    async def held(self, symbol: str) -> ExchangePosition | None:
        """One symbol's position; None if nothing is held. A list without its row proves nothing: then the account is asked."""
        found = holdings_of(await self._caller.call("get_positions", symbol)).get(symbol)
        if found is not None:
            return found
        account = account_of(await self._caller.call("get_account_v4"))
        quantity = account.held.get(symbol, ZERO)
        return ExchangePosition(symbol, quantity, ZERO, None) if quantity else None

    # --- positions -------------------------------------------------------------------------------------------------------

    async def _round(self, known: Known) -> tuple[AccountAnswers, list[str]]:
        """A round of calls, and why a source is missing from it. While a kill closes positions, one that does not answer must
        not hold up the rest: the list of spot orders comes from another host. Otherwise, and if no source tells the positions,
        raises VenueError."""
        tools = ("get_positions", "get_account_v4", *_LISTS.values())
        answers = await asyncio.gather(*map(self._caller.call, tools), return_exceptions=known.flattens)
        errors: list[VenueError] = []

        def read(answer: object, of: Callable[[object], T]) -> T | None:
            try:
                if isinstance(answer, BaseException):
                    raise answer
                return of(answer)
            except VenueError as error:
                if not known.flattens or isinstance(error, HedgeMode):
                    raise
                errors.append(error)
                return None

        held, account = read(answers[0], holdings_of), read(answers[1], account_of)
        if len(errors) > 1:
            raise errors[0]
        futures, spot = (
            read(answer, partial(orders_of, call, market=market))
            for answer, (market, call) in zip(answers[2:], _LISTS.items(), strict=True)
        )
        nothing = AccountSeen(Account(balance=known.balance or ZERO), {}, ZERO, ZERO)
        found = AccountAnswers(held or {}, futures or [], spot or [], account or nothing)
        return found, [str(error) for error in errors]

    async def _agreed(self, seen: AccountAnswers) -> AccountAnswers:
        """The answers. If they contradict each other, their sources are asked again, twice at most."""
        call = self._caller.call
        for pause in LOOKS_AGAIN_SECONDS:
            if not _contradictions(seen):
                break
            await asyncio.sleep(pause)
            listed = not _hides_orders(seen)
            held, account, futures = await asyncio.gather(
                call("get_positions", seconds=CONFIRM_SECONDS),
                call("get_account_v4", seconds=CONFIRM_SECONDS),
                asyncio.sleep(0) if listed else call("get_open_orders", seconds=CONFIRM_SECONDS),
            )
            orders = seen.futures if listed else orders_of("get_open_orders", futures, Market.FUTURES)
            seen = seen._replace(holdings=holdings_of(held), account=account_of(account), futures=orders)
        return seen

    async def _lost_positions(
        self, seen: AccountAnswers, known: Known
    ) -> tuple[dict[str, ExchangePosition], list[str]]:
        """Positions that the desk held and that no source lists any more, not even as zero; and why they do not count as gone
        yet."""
        listed = {*seen.holdings, *seen.account.held}
        lost, now = [symbol for symbol in known.held if symbol not in listed], self._clock()
        # A position that was found again starts over, whether this reading found it or another worker's in between.
        missing = {symbol: self._missing.get(symbol, MissingPosition(now)) for symbol in lost}
        # Those first that were not asked for, or longest ago.
        asked = sorted(lost, key=lambda symbol: missing[symbol].asked_at)[:MOST_POSITIONS_ASKED]
        answers = await asyncio.gather(*map(self._stated, asked))
        told = zip(asked, answers, strict=True)
        missing |= {symbol: MissingPosition(missing[symbol].since, now, answer) for symbol, answer in told}
        self._missing, found, doubts = missing, {}, []
        for symbol, it in missing.items():
            if isinstance(it.stated, ExchangePosition):
                # Asked for one symbol, the exchange answers a row with zero if nothing is held.
                if it.stated.quantity:
                    found[symbol] = it.stated
                    why = f"get_positions says {it.stated.quantity} when asked for it alone, and lists it nowhere else"
                    doubts.append(f"{symbol}: {why}")
            elif it.stated or it.asked_at < it.since or now - it.since < GONE_AFTER_SECONDS:
                # Where the exchange was not asked, or has not answered, it has left nothing out.
                found[symbol] = ExchangePosition(symbol, known.held[symbol], ZERO, None)
                doubts.append(f"{symbol}: held before, and {it.stated or 'no source says what became of it'}")
        return found, doubts

    async def _stated(self, symbol: str) -> ExchangePosition | VenueError | None:
        """What the exchange says of one position; None if it leaves it out or does not know the symbol, the error if it does
        not answer."""
        try:
            answer = await self._caller.call("get_positions", symbol, seconds=CONFIRM_SECONDS)
            return holdings_of(answer).get(symbol)
        except VenueRateLimited:
            raise
        except BadRequest:
            return None
        except VenueError as error:
            return error

    # --- open orders -----------------------------------------------------------------------------------------------------

    async def _looked_twice(self, seen: AccountAnswers, known: Known) -> tuple[list[OpenOrder], list[str]]:
        """The orders that are listed.

        An empty list ends a kill only if it is empty again a moment later, and no spot balance is locked.
        """
        ends = known.verifies or (known.flattens and not any(h.quantity for h in _holdings(seen).values()))
        if not ends or seen.futures or seen.spot:
            return [*seen.futures, *seen.spot], []
        await asyncio.sleep(SECOND_LOOK_SECONDS)
        futures, spot, locked = await asyncio.gather(
            self._caller.call("get_open_orders"),
            self._caller.call("get_spot_open_orders"),
            # None if the venue does not tell: the lists are read twice all the same.
            self._caller.call_or_none(locked_of, "get_spot_account", seconds=CONFIRM_SECONDS),
        )
        of_spot = orders_of("get_spot_open_orders", spot, Market.SPOT)
        doubt = f"get_spot_open_orders lists none, though {', '.join(locked or [])} is locked"
        hidden = [doubt] if locked and not of_spot else []
        return [*orders_of("get_open_orders", futures, Market.FUTURES), *of_spot], hidden

    async def _lost_orders(self, seen: AccountAnswers, known: Known) -> tuple[list[OpenOrder], list[str]]:
        """Orders that rested and are no longer listed: those that are open by their own status, and doubts about the others."""
        listed = {(order.market, order.symbol, order.order_id) for order in [*seen.futures, *seen.spot]}
        lost = [o for o in known.resting if o not in self._over and (o.market, o.symbol, o.order_id) not in listed]
        told = await asyncio.gather(*(self._status(order) for order in lost[:MOST_ORDERS_ASKED]))
        found = [order for order in told if isinstance(order, OpenOrder)]
        hidden = [
            f"order {o.order_id} of {o.symbol}: open, and {_LISTS[Market(o.market)]} does not list it" for o in found
        ]
        unread = [str(error) for error in told if isinstance(error, VenueError)]
        unasked = len(lost) - len(told)
        return found, [*hidden, *unread, *([f"{unasked} more orders are not listed any more"] if unasked else [])]

    async def _status(self, order: RestingOrder) -> OpenOrder | VenueError | None:
        """The order if it is still open, the error if its status cannot be read, None if it is over."""
        tool = _ASKS[order.market]
        try:
            answer = await self._caller.call(tool, order.symbol, seconds=CONFIRM_SECONDS, order_id=int(order.order_id))
            row = Row(tool, answer).of_order(int(order.order_id))
            if (status := row.text("status")) in STILL_OPEN:
                return open_order_of(row, order.market)
            if status not in OVER:
                return Unreadable(f"{tool} {order.symbol}", f"order {order.order_id} is {printable(status)[:40]}")
        except VenueRateLimited:
            raise
        except BadRequest:
            pass  # The exchange forgets a canceled order after a week. By now two sources do not know it.
        except VenueError as error:
            return error
        self._over[order] = None
        while len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
        return None

    # --- the balance -----------------------------------------------------------------------------------------------------

    async def _balance_doubts(self, seen: AccountSeen, known: Known) -> list[str]:
        """Doubts about a balance that is far from the last one, unless another endpoint confirms it."""
        balance = seen.account.balance
        if known.balance is None or _near(balance, known.balance):
            self._jumped_to = None
            return []
        jump = f"the balance went from {known.balance} to {balance}"
        try:
            again = wallet_of(await self._caller.call("get_account_info", seconds=CONFIRM_SECONDS))
        except VenueRateLimited:
            raise
        except VenueError as error:
            # Without a second source, it counts once the same balance has been read for long enough.
            if self._jumped_to is None or not _near(balance, self._jumped_to[0]):
                self._jumped_to = (balance, self._clock())
            return [] if self._clock() - self._jumped_to[1] >= GONE_AFTER_SECONDS else [f"{jump}, and {error}"]
        return [] if _near(again, balance) else [f"{jump}, and get_account_info says {again}"]


def _contradictions(seen: AccountAnswers) -> list[str]:
    held = _quantities(seen)
    found = [
        f"{symbol}: get_positions says {one}, get_account_v4 {other}"
        for symbol, (one, other) in held.items()
        if one != other
    ]
    if _hides_orders(seen):
        found.append("get_open_orders lists none, though get_account_v4 has margin set aside for open orders")
    # Both lists may come from one source at the exchange, which loses them together. The margin comes from another.
    if not held and seen.account.position_margin > 0:
        found.append("no position is listed, though get_account_v4 has margin set aside for positions")
    return found


def _quantities(seen: AccountAnswers) -> dict[str, tuple[Decimal, Decimal]]:
    """Both endpoints' quantities, for every symbol that either shows as held."""
    one = {symbol: holding.quantity for symbol, holding in seen.holdings.items()}
    other = seen.account.held
    held = dict.fromkeys(symbol for symbol, quantity in [*one.items(), *other.items()] if quantity)
    return {symbol: (one.get(symbol, ZERO), other.get(symbol, ZERO)) for symbol in held}


def _holdings(seen: AccountAnswers) -> dict[str, ExchangePosition]:
    """Every holding, including those that only the account shows. If two quantities differ, the smaller one that is not zero
    counts: closing more than is held would be refused."""
    shown = dict(seen.holdings)
    for symbol, quantities in _quantities(seen).items():
        quantity = min((each for each in quantities if each), key=abs)
        shown[symbol] = shown.get(symbol, ExchangePosition(symbol, quantity, ZERO, None))._replace(quantity=quantity)
    return shown


def _hides_orders(seen: AccountAnswers) -> bool:
    return not seen.futures and seen.account.order_margin > 0


def _near(one: Decimal, other: Decimal) -> bool:
    return abs(one - other) <= max(abs(other), Decimal(1)) * BALANCE_MOVES
