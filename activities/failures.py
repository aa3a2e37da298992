"""Turns a venue's errors into Temporal failures. The error class decides whether Temporal retries."""

from temporalio.exceptions import ApplicationError

from activities.venues.port import VenueError


def failure(error: VenueError, before: str = "", *details: object) -> ApplicationError:
    """The same error for a history. Raise it `from None`: what caused it may hold what no history may see."""
    return ApplicationError(
        f"{before}{error}",
        *details,
        type=type(error).__name__,
        non_retryable=not error.retryable,
        next_retry_delay=error.retry_after,
    )
