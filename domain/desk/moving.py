"""Moves a desk to another mode: only by a restart, and only once nothing of the old mode is under way.

The mode determines which workers, which venue and which account serve the desk. So what the desk knows of the old venue is
worthless at the new one: the move forgets it, and the first reading there starts from nothing. Decisions, counters, limits
and the database stay. Money and positions never move: they stay at the old venue, and nobody watches them any more.
"""

from domain.desk.carried import Carried
from domain.desk.commands import NewTerms, Restart
from domain.desk.states import Mode
from domain.desk.warnings import Topic, unwarn
from domain.trading.symbols import few

_OF_THE_VENUE = (
    Topic.ACCOUNT_HELD,
    Topic.BOOKS_DIFFER,
    Topic.BOOKS_NOT_WHOLE,
    Topic.BREACH_UNCONFIRMED,
    Topic.CLOCK,
    Topic.FOREIGN_ORDERS,
    Topic.ORDER_UNKNOWN,
    Topic.POSITION_GREW,
    Topic.REDUCTION_FAILED,
)
NO_ACCOUNT = "a new mode needs the fingerprint of its account; `ais restart --mode` sends it"
ANOTHER_ACCOUNT = "the account changes only with the mode; another account needs a new desk"
UNREAD = (
    "the account was not read since the kill was verified; wait for the next cycle, with a worker of the old mode up"
)


def moves(c: Carried, terms: NewTerms | None) -> bool:
    """Whether these terms name a mode other than the desk's."""
    return terms is not None and terms.mode not in (None, c.mode)


def refusal(c: Carried, restart: Restart) -> str | None:
    """Why the desk cannot move now; None if it may, or if the restart does not move it. `terms.refusal` checks that the
    kill is verified, as for any other term."""
    terms = restart.terms
    if terms is None or terms.mode in (None, c.mode):
        stays = terms is None or terms.account in (None, c.account)
        return None if stays else ANOTHER_ACCOUNT
    if terms.account is None or (terms.mode is not Mode.PAPER and not terms.account):
        return NO_ACCOUNT
    return _under_way(c) or (None if restart.with_positions else _left_behind(c))


def move(c: Carried, terms: NewTerms) -> None:
    """Takes the new mode and its account, and forgets what was read at the old venue."""
    assert terms.mode is not None
    if terms.account != c.account:
        # If shadow and live share the account, kills still reach the symbols seen there.
        c.seen_symbols = []
    c.mode, c.account, c.row_dirty = terms.mode, terms.account, True
    c.observation, c.observation_error = None, None
    c.filled, c.recent_orders, c.quotes, c.reduction_id = {}, [], {}, ""
    for topic in _OF_THE_VENUE:
        unwarn(c, topic)


def standing(c: Carried) -> set[str] | None:
    """The symbols with a position or an open order, according to a reading since the kill was verified; None if there is no
    such reading."""
    seen, kill = c.observation, c.kill
    # In shadow nothing was sent, so nothing is verified.
    since = None if kill is None else kill.at if c.mode is Mode.SHADOW else kill.verified_at
    if seen is None or since is None or seen.observed_at < since:
        return None
    return {p.symbol for p in seen.positions if p.quantity} | {o.symbol for o in seen.open_orders}


def _under_way(c: Carried) -> str | None:
    """What has begun in the old mode, and cannot end in another."""
    if c.orders or any(waiting.order_id or not waiting.automatic for waiting in c.deleverages):
        return "an order or a deleverage is under way; wait until `ais status` shows none"
    return f"{len(c.cancels)} cancels are not confirmed yet; wait until `ais status` shows none" if c.cancels else None


def _left_behind(c: Carried) -> str | None:
    if (left := standing(c)) is None:
        return UNREAD
    if not left:
        return None
    return (
        f"positions or orders are open at the venue of mode {c.mode.value}: {few(sorted(left))}. Close them first; or leave "
        "them there, where nothing manages them: `ais restart --with-positions`"
    )
