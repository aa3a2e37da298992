"""What every process does when it starts: sets up logging, and waits for what is not up yet."""

import asyncio
import contextlib
import importlib
import logging
import multiprocessing
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from settings import LogSettings, TraceSettings
    from tracing import Traces

FIRST_DELAY_SECONDS = 0.25
LAST_DELAY_SECONDS = 5.0
# Once the process ends, background loops get this long to release what they hold.
LAST_WORDS_SECONDS = 2.5
# What the log may hold back while nobody reads standard error, and how long the end of a process waits for it to be written.
MOST_UNWRITTEN_CHARS = 4 * 1024 * 1024
LAST_LINES_SECONDS = 1.0
_STDERR = 2
MOST_DESCRIPTORS = 16_384
# The fields of a log line that have several lines: the traceback of an error, and the stack.
_TRACES = ("exception", "stack")

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
    flush_log()
    _print_last(code if isinstance(code, str) else None)
    if isinstance(code, str):
        code = 1
    try:
        # None where a process was started without it.
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        code = code or 1
    os._exit(code or 0)


def raise_descriptor_limit() -> None:
    """Raises the soft limit of this process and its children as far as useful. A worker's ports of metrics are open to its
    neighbours, and each of their connections takes a descriptor that a kill's cancels may need."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if resource.RLIM_INFINITY != soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def flush_log() -> None:
    """Has the log write what it holds back, for a limited time: a process that ends at once would lose it."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _print_last(text: str | None) -> None:
    """Prints the reason for the end, if there is one, and what standard error still holds back, for a limited time: nobody may be
    reading, and the process has to end all the same."""

    def write() -> None:
        with contextlib.suppress(OSError):
            if text is not None:
                print(text, file=sys.stderr)
            # Here and nowhere else: while this thread waits for a reader, it has the lock that a flush needs.
            if sys.stderr:
                sys.stderr.flush()

    printing = threading.Thread(target=write, daemon=True)
    # RuntimeError: there is room for no further thread. Then nothing is printed.
    with contextlib.suppress(RuntimeError):
        printing.start()
        printing.join(LAST_WORDS_SECONDS)


def end_with_supervisor() -> None:
    """Has this process end, in order, once the one that supervises it is gone. Does nothing in a process without one.

    After a kill -9 of `ais api --workers 2`, its processes went on: they held the port, so that no other `ais api` could start,
    kept the old settings, and nobody replaced one that died.
    """
    if (supervisor := multiprocessing.parent_process()) is None:
        return

    def wait() -> None:
        supervisor.join()
        logging.getLogger("startup").warning("the supervisor is gone: this process ends")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()


def need_traces(chosen: "TraceSettings") -> None:
    """Raises TracesNotInstalled if traces are wanted and their packages are not there."""
    if chosen.url is None:
        return
    try:
        importlib.import_module("tracing")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise TracesNotInstalled(
            "AIS_TRACES_URL needs packages that are not installed: pip install 'ais[traces]'"
        ) from None


def open_traces(chosen: "TraceSettings", process: str, desk: str) -> "Traces | None":
    """The traces of this process. None if they are switched off; their packages are not imported then."""
    if chosen.url is None:
        return None
    need_traces(chosen)
    import tracing

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


class StderrHandler(logging.Handler):
    """Writes to standard error in a thread of its own, so that whoever logs never waits for whoever reads.

    The failure behind this: standard error is often a pipe, and whoever reads it may stop: a full disk below `docker logs`, a
    journal that hangs, `| less`. A pipe takes 64 KiB. After that each line of the log waited, in the event loop of API and
    worker, and a kill waited with it, for ever (measured). Lines beyond what may be held back are dropped and counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        # Characters: each number has one writer, whoever holds the handler's lock and the thread.
        self._taken = 0
        self._written = 0
        self._dropped = 0
        self._pid = 0
        # A process that was started without standard error uses its number for something else, such as a connection.
        self._is_open = sys.__stderr__ is not None

    def emit(self, record: logging.LogRecord) -> None:
        """Hands the line to the thread, or drops it."""
        if not self._is_open:
            return
        try:
            self._take(self.format(record) + "\n")
        except Exception:
            self.handleError(record)

    def _take(self, line: str) -> None:
        if self._taken - self._written + len(line) > MOST_UNWRITTEN_CHARS:
            self._dropped += 1
            return
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            told = "lines of the log were dropped: nobody read standard error"
            facts = logging.LogRecord("startup", logging.WARNING, __file__, 0, f"{dropped} {told}", None, None)
            self._put(self.format(facts) + "\n")
        self._put(line)

    def flush(self) -> None:
        """Waits until all of it is written, for a limited time."""
        until = time.monotonic() + LAST_LINES_SECONDS
        while self._written < self._taken and self._pid == os.getpid() and time.monotonic() < until:
            time.sleep(0.005)

    def _put(self, line: str) -> None:
        if self._pid != os.getpid():
            # The first line, or the first one of a fork, which has no threads but the one that forked.
            self._pid, self._lines, self._written = os.getpid(), queue.SimpleQueue(), self._taken
            threading.Thread(target=self._write_all, args=(self._lines,), name="log", daemon=True).start()
        self._taken += len(line)
        self._lines.put(line)

    def _write_all(self, lines: "queue.SimpleQueue[str]") -> None:
        while True:
            line = lines.get()
            # Not through `sys.stderr`: its lock would be held for as long as the write waits.
            with contextlib.suppress(OSError):
                _write(_STDERR, line.encode("utf-8", "backslashreplace"))
            self._written += len(line)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # Another process has made what they share non-blocking.
            select.select([], [descriptor], [])


def _printable_traces(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    from domain.values import printable_lines

    for name in _TRACES:
        if isinstance(event.get(name), str):
            event[name] = printable_lines(event[name])
    return event


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
    text = structlog.dev.ConsoleRenderer(
        colors=bool(sys.stderr and sys.stderr.isatty()), exception_formatter=structlog.dev.plain_traceback
    )
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
            # After it, since the texts of errors contain what somebody sent.
            _printable_traces,
            last,
        ],
    )
    handler = StderrHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=log.log_level, force=True)
