"""How long to leave the exchange alone after 429 or 418.

Calling on after a 429 earns a ban of the whole address: two minutes at first, up to three days for repeated offences. So one
429 pauses the readings of all cycles, and all new orders. But a single refusal must not delay a kill. So all other
calls wait only for refusals of their own kind: a kill's readings wait for the pause of their own tool, and cancels for that of
cancels. One cancel at a time keeps trying, because only an attempt shows whether the exchange has recovered.
"""

import time
from collections.abc import Callable
from datetime import timedelta

from activities.venues.aster.operation import Urgency
from activities.venues.port import VenueRateLimited

TOO_MANY_SECONDS = 10.0
TOO_MANY_MOST_SECONDS = 60.0
BANNED_SECONDS = 120.0
BANNED_MOST_SECONDS = 3600.0
# Between two cancels that probe whether the exchange accepts cancels again.
FIRST_TRY_SECONDS = 1.0
LAST_TRY_SECONDS = 10.0
_BANNED = 418
_PAUSES = {False: (TOO_MANY_SECONDS, TOO_MANY_MOST_SECONDS), True: (BANNED_SECONDS, BANNED_MOST_SECONDS)}


class BackoffPause:
    """One pause. The next is twice as long, until a call gets through."""

    def __init__(self) -> None:
        self.until = 0.0
        self._seconds = 0.0
        self._told_at = 0.0

    def again(self, now: float, first: float, most: float) -> None:
        """The venue asked for a pause. Calls that were under way together are refused together, which counts once."""
        if now >= self.until or first > self._seconds:
            self._seconds = max(self._seconds, min(max(2 * self._seconds, first), most))
            self.until = now + self._seconds
        self._told_at = now

    def got_through(self, now: float, began: float, *, own: bool) -> None:
        """A call was answered; `own` says whether this is its own kind's pause. One that began before the pause proves nothing.

        A banned address gets no answer at all. So an answer shows that the address is not banned, and a pause of two minutes
        shrinks to what follows a 429.
        """
        if began < self._told_at:
            return
        if own and now >= self.until:
            self._seconds = 0.0
        if self._seconds > TOO_MANY_MOST_SECONDS:
            as_after_429 = min(self._seconds * TOO_MANY_SECONDS / BANNED_SECONDS, TOO_MANY_MOST_SECONDS)
            self.until = min(self.until, self._told_at + as_after_429)


class Backoff:
    """The pauses in force. The exchange counts by address, so a pause of one tool applies to every reading."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._address = BackoffPause()
        self._tools: dict[str, BackoffPause] = {}
        # When a cancel was last refused, when the next may try, and how long cancels then wait again.
        self._refused_at = 0.0
        self._next_try = 0.0
        self._try_seconds = 0.0

    def refuse(self, call: str, tool: str, urgency: Urgency) -> None:
        """Raises VenueRateLimited while the call has to wait. Calls that complete a cancel never wait."""
        if urgency is Urgency.UNDER_WAY:
            return
        left = self._waits_until(tool, urgency) - self.now()
        if left > 0:
            raise VenueRateLimited(call, timedelta(seconds=left))
        if urgency is Urgency.CANCEL and self._next_try:
            self._next_try = self.now() + self._try_seconds

    def paused(self, call: str, tool: str, urgency: Urgency, status: int, began: float) -> VenueRateLimited:
        """The venue answered a call that began at `began` by asking for a pause."""
        now = self.now()
        pauses = [self._address]
        if urgency <= Urgency.CANCEL:
            # Cancels that were under way together are refused together, which counts once.
            if began > self._refused_at:
                self._try_seconds = min(max(2 * self._try_seconds, FIRST_TRY_SECONDS), LAST_TRY_SECONDS)
            self._refused_at, self._next_try = now, now + self._try_seconds
        else:
            pauses.append(self._tools.setdefault(tool, BackoffPause()))
        for pause in pauses:
            pause.again(now, *_PAUSES[status == _BANNED])
        return VenueRateLimited(call, timedelta(seconds=self._waits_until(tool, urgency) - now))

    def answered(self, tool: str, urgency: Urgency, began: float) -> None:
        """A call that began at `began` got through."""
        now = self.now()
        if urgency <= Urgency.CANCEL and began > self._refused_at:
            self._next_try = self._try_seconds = 0.0
        self._address.got_through(now, began, own=True)
        for name, pause in self._tools.items():
            pause.got_through(now, began, own=name == tool)

    def _waits_until(self, tool: str, urgency: Urgency) -> float:
        """Until when such a call has to wait."""
        if urgency <= Urgency.CANCEL:
            return self._next_try
        own = self._tools[tool].until if tool in self._tools else 0.0
        return own if urgency is Urgency.SOON else max(own, self._address.until)
