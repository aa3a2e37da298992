"""What every process does when it starts: sets up logging, and waits for what is not up yet."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from settings import LogSettings, TraceSettings
    from tracing import Traces

FIRST_DELAY_SECONDS = 0.25
LAST_DELAY_SECONDS = 5.0
# Once the process ends, background loops get this long to release what they hold.
LAST_WORDS_SECONDS = 2.5

T = TypeVar("T")
Say = Callable[[str], None]


class NotUp(Exception):
    """Something this process needs did not come up in time; the text says what, and how long the process waited."""


class TracesNotInstalled(Exception):
    """A setting needs packages that are not there; the text says how to install them."""


async def patiently(
    what: str, attempt: Callable[[], Awaitable[T]], seconds: float, say: Say, *errors: type[Exception]
) -> T:
    """Retries `attempt` on `errors`, with growing delays, and returns its first result. Says once what it waits for."""
    deadline, delay, said = time.monotonic() + seconds, FIRST_DELAY_SECONDS, False
    while True:
        try:
            return await attempt()
        except errors as error:
            if time.monotonic() + delay > deadline:
                raise NotUp(f"{what} did not answer within {seconds:g} s: {_first_line(error)}") from error
            if not said:
                say(f"waiting for {what} (up to {seconds:g} s): {_first_line(error)}")
                said = True
        await asyncio.sleep(delay)
        delay = min(delay * 2, LAST_DELAY_SECONDS)


def leave(code: int | str | None) -> NoReturn:
    """Ends this process at once: with exit code 1 and a text on standard error, or with a given number.

    The incident behind this: after a Temporal client could not connect, the interpreter's normal exit aborted
    (`PyGILState_Release`) or hung, and the exit code was that of a signal.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 1
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code or 0)


def open_traces(chosen: "TraceSettings", process: str, desk: str) -> "Traces | None":
    """The traces of this process. None if they are switched off; their packages are not imported then."""
    if chosen.url is None:
        return None
    try:
        import tracing
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise TracesNotInstalled(
            "AIS_TRACES_URL needs packages that are not installed: pip install 'ais[traces]'"
        ) from None
    return tracing.open_traces(chosen.url, process, desk)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextlib.asynccontextmanager
async def in_background(*loops: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Runs these loops beside the body. Nothing waits for them, except briefly at the end."""
    running = {asyncio.create_task(loop) for loop in loops}
    for task in running:
        task.add_done_callback(_tell_error)
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=LAST_WORDS_SECONDS)


def _tell_error(loop: asyncio.Task[object]) -> None:
    """Logs a loop that failed: nobody awaits it while the process runs, so it would end unnoticed."""
    if not loop.cancelled() and (error := loop.exception()):
        logging.getLogger("startup").error("a background loop failed: a bug", exc_info=error)


async def once_known(ask: Callable[[], Awaitable[T | None]], tell: Callable[[T], object]) -> None:
    """Asks until there is an answer, and passes it to `tell`."""
    while (found := await ask()) is None:
        await asyncio.sleep(LAST_DELAY_SECONDS)
    tell(found)


def configure_logging(log: "LogSettings") -> None:
    """Sends structlog's and the standard library's logs to standard error, as text for people or JSON for machines."""
    # Imported late: a command in an incident needs no log, and must not wait for it.
    import structlog

    from domain.values import printable_texts

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _logger, _method, event: printable_texts(event),
    ]
    # By default rich draws a traceback with every local variable. That blocked everything else for 13 s (measured), and the
    # locals of a request contain the key.
    text = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    last = structlog.processors.JSONRenderer() if log.log_format == "json" else text
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
