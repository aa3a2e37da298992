"""Distinguishes a rejected signature from a wrong call.

If a request's time is more than a few seconds off, the exchange answers 400, as for any request that it does not understand,
and the server hides the details. But a call for the whole account has no argument that could be wrong. If two different ones
of these fail, the cause is the signature, and the fault ends once the clocks agree again.
"""

import time

import structlog

from activities.venues.aster.answers import BadRequest
from activities.venues.port import VenueRefused, VenueUnavailable
from domain.health.troubles import KnownTroubles

log = structlog.get_logger("aster")


class SignatureRefused(VenueUnavailable):
    """The exchange refuses every signed call but answers public ones."""

    retryable = True

    def __init__(self, call: str) -> None:
        super().__init__(
            f"{call}: HTTP 400, as for every signed call, while public ones are answered: compare the clocks of the machine "
            "of the MCP server and of the exchange (they may differ by 5 s at most)"
        )


class Signing:
    """The latest results of signed and public calls."""

    def __init__(self) -> None:
        self._refused: set[str] = set()
        self._refused_since = 0.0
        self._public_at = 0.0
        self._troubles = KnownTroubles()

    def answered(self, *, signed: bool) -> None:
        """A call got through."""
        if signed:
            self._refused.clear()
            self._troubles.end()
        else:
            self._public_at = time.monotonic()

    def refused(self, tool: str, call: str, error: VenueRefused) -> VenueRefused | SignatureRefused:
        """The error for a refused signed call. An order counts as rejected, whatever the reason."""
        if not isinstance(error, BadRequest):
            return error
        if not self._refused:
            self._refused_since = time.monotonic()
        self._refused.add(tool)
        nothing_to_be_wrong = call == tool
        if not (nothing_to_be_wrong or len(self._refused) > 1) or self._public_at < self._refused_since:
            return error
        if self._troubles.begin():
            log.warning("every signed call is refused (HTTP 400) while public ones are answered: compare the clocks")
        return error if tool == "create_order" else SignatureRefused(call)
