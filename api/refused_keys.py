"""Counts refused keys by reason, and logs their addresses in one line every ten seconds.

The key itself is never logged: a mistyped one is nearly the right one. Nobody is slowed down, since an address may be that of a
proxy with everybody behind it. Addresses are not a label of any metric: strangers would choose how many values it has.
"""

import asyncio
from collections import Counter
from typing import Any

import structlog

from api.keys import KeyRefusal, RefusedKey
from api.metrics import ApiMetrics
from domain.values import printable

LOG_SECONDS = 10.0
MOST_ADDRESSES = 1_000
MOST_TOLD = 10
MAX_ADDRESS_CHARS = 64
OTHERS = "others"

log: Any = structlog.get_logger("api")


class RefusedKeyCounter:
    """The counts of one process."""

    def __init__(self, instruments: ApiMetrics) -> None:
        self._instruments = instruments
        self._addresses: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._names: set[str] = set()
        self._is_quiet = False

    def count(self, refused: RefusedKey, address: str) -> None:
        """Counts a refusal. A request without any key comes from a stranger, and is only counted."""
        self._instruments.key_refused(refused.why.value)
        if refused.why is KeyRefusal.MISSING:
            return
        # A proxy's header may contain anything, of any length.
        address = printable(address[:MAX_ADDRESS_CHARS])[:MAX_ADDRESS_CHARS]
        is_known = address in self._addresses or len(self._addresses) < MOST_ADDRESSES
        self._addresses[address if is_known else OTHERS] += 1
        self._reasons[refused.why.value] += 1
        if refused.key is not None and len(self._names) < MOST_TOLD:
            self._names.add(refused.key.name)
        if not self._is_quiet:
            self._is_quiet = True
            self._tell()

    def _tell(self) -> None:
        if not self._reasons:
            self._is_quiet = False
            return
        addresses = dict(self._addresses.most_common(MOST_TOLD))
        names = {"names": sorted(self._names)} if self._names else {}
        log.warning(
            "keys refused", count=self._reasons.total(), reasons=dict(self._reasons), addresses=addresses,
            different_addresses=len(self._addresses), **names,
        )  # fmt: skip
        self._addresses, self._reasons, self._names = Counter(), Counter(), set()
        asyncio.get_running_loop().call_later(LOG_SECONDS, self._tell)
