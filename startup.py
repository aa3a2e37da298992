"""What every process does as it starts: logging, and patience with what is not up yet."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import structlog

from domain.values import printable_texts
from settings import LogSettings

FIRST_DELAY_SECONDS = 0.25
LAST_DELAY_SECONDS = 5.0

T = TypeVar("T")
Say = Callable[[str], None]


class NotUp(Exception):
    """What a process waited for did not come up in time; the text says what and for how long."""


async def patiently(
    what: str, attempt: Callable[[], Awaitable[T]], seconds: float, say: Say, *errors: type[Exception]
) -> T:
    """The first answer of `attempt`, tried again on `errors` with growing delays; says once what it waits for."""
    deadline, delay, told = time.monotonic() + seconds, FIRST_DELAY_SECONDS, False
    while True:
        try:
            return await attempt()
        except errors as error:
            if time.monotonic() + delay > deadline:
                raise NotUp(f"{what} did not answer within {seconds:g} s: {_first_line(error)}") from error
            if not told:
                say(f"waiting for {what} (up to {seconds:g} s): {_first_line(error)}")
                told = True
        await asyncio.sleep(delay)
        delay = min(delay * 2, LAST_DELAY_SECONDS)


def leave(code: int | str | None) -> NoReturn:
    """Ends this process at once, with a text on standard error and 1, or with a number.

    The incident behind this: after a client of Temporal that could not connect, the interpreter's own way out aborted
    (`PyGILState_Release`) or hung, and the exit code was a signal's.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def configure_logging(log: LogSettings) -> None:
    """Sends structlog and the standard library's loggers to standard error, as text for people or JSON for machines."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _logger, _method, event: printable_texts(event),
    ]
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            last,
        ],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=log.log_level, force=True)
