"""Turns a venue's errors into Temporal failures. The error class decides whether Temporal retries."""

from temporalio.exceptions import ApplicationError

from activities.venues.port import VenueError


def failure(error: VenueError, before: str = "", *details: object) -> ApplicationError:
    """The error in a form that a history may hold. Raise it `from None`: its cause may contain secrets."""
    return ApplicationError(
        f"{before}{error}",
        *details,
        type=type(error).__name__,
        non_retryable=not error.retryable,
        next_retry_delay=error.retry_after,
    )
