"""The share of the exchange's weight that reading much of the books at once may use.

The exchange counts the weight of all calls from one address, 2,400 a minute, and refuses whatever comes after that, a kill's
cancels too. Reading a month again makes hundreds of calls in a row. So every page after a period's first one may have to wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

# At once, and then 600 a minute.
BURST = 400.0
PER_SECOND = 10.0
# asterdex/api-docs.
WEIGHTS = {"get_income": 30.0, "get_my_trades": 5.0}


class Allowance:
    """What is left of the share. It grows with time, up to BURST."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._left = BURST
        self._at = clock()

    async def take(self, tool: str) -> None:
        """Returns once a call of the tool is within the share."""
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND) - WEIGHTS[tool]
        self._at = now
        if self._left < 0:
            await self._sleep(-self._left / PER_SECOND)
