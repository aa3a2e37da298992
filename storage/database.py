"""The way to PostgreSQL: a bounded number of threads, one transaction per call, and a time limit on every wait.

The failure behind this file: a PostgreSQL that is stopped instead of dead (SIGSTOP, a hung disk, a cut network) answers
nothing and closes nothing. A thread that reads from it hangs, the pool runs dry, and the next callers hang too. Server-side
timeouts do not help, because the server does not run. So the caller keeps the time. When it is up, the caller shuts down the
call's socket: that frees the thread at once, and nothing more of that transaction is ever sent.
"""

import asyncio
import contextlib
import contextvars
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from storage import installation

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 2
CALLS_WAITING_PER_THREAD = 32
MAX_TEXT_CHARS = 200

# A table, schema, column or function is missing. The driver raises no OperationalError for it, but it is no bug of ours either.
_MISSING_SCHEMA = frozenset({"42P01", "3F000", "42703", "42883"})
_MISSING_RIGHT = frozenset({"42501"})
_READ_ONLY_SERVER = frozenset({"25006"})
# Damaged data or indexes, and the server's own bugs.
_INTERNAL = "XX"


class DatabaseUnavailable(Exception):
    """PostgreSQL failed, and the statement is not to blame. A write may have been committed all the same."""


class WrongDatabase(DatabaseUnavailable):
    """PostgreSQL answered, but it is not the expected database. Nothing was done in it."""


class _Abandoned(Exception):
    """The caller has given up: nothing more may be sent for this call."""


class Database:
    """A PostgreSQL database: an engine, and the only threads that use it. The constructor does not connect."""

    def __init__(self, url: str, *, threads: int = 4, timeout_seconds: float = 5.0, application_name: str) -> None:
        self._timeout_seconds = timeout_seconds
        pool = {"pool_size": threads, "max_overflow": 0, "pool_use_lifo": True}
        self._engine = make_engine(url, timeout_seconds, application_name, **pool)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=application_name)
        self._slots = threading.BoundedSemaphore(threads * CALLS_WAITING_PER_THREAD)
        self._calls: set[_Call] = set()
        self._closed = False
        self._current = threading.local()
        # First of the listeners: SQLAlchemy's own asks the server things as soon as it is connected.
        event.listen(self._engine, "connect", self._attach_new_connection, insert=True)

    async def run(self, work: Callable[[Connection], T], timeout_seconds: float | None = None) -> T:
        """Runs `work` in a transaction, commits it, and returns what `work` returned.

        Raises DatabaseUnavailable after `timeout_seconds` at the latest, and if this is not the database that
        `installation.expecting` names. Once this has raised or was cancelled, `work` sends nothing more, or never begins.
        """
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        call = _Call(installation.expected())
        future = self._submit(call, work, seconds)
        waiter = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait({waiter}, timeout=seconds)
            if not done:
                raise DatabaseUnavailable(f"PostgreSQL did not answer within {seconds:g} s")
            return waiter.result()
        finally:
            if not waiter.done():
                call.abandon()
                future.cancel()
                waiter.cancel()

    async def ping(self, timeout_seconds: float | None = None) -> bool:
        """Whether PostgreSQL answers a statement now."""
        try:
            await self.run(lambda connection: None, timeout_seconds)
        except DatabaseUnavailable:
            return False
        return True

    def close(self) -> None:
        """Ends what is running and closes every connection; later calls raise DatabaseUnavailable."""
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for call in list(self._calls):
            call.abandon()
        # Not `engine.dispose()`: that begins a new pool, and connections that return to the old one stay open.
        self._engine.pool.dispose()

    def _submit(self, call: "_Call", work: Callable[[Connection], T], seconds: float) -> Future[T]:
        if not self._slots.acquire(blocking=False):
            raise DatabaseUnavailable("too many calls wait for PostgreSQL")
        try:
            # With the caller's context, so that a trace of a statement knows its caller.
            future = self._executor.submit(contextvars.copy_context().run, self._perform, call, work, seconds)
        except RuntimeError as error:
            # If no thread could be started, the executor has kept the call, and would carry it out later.
            call.abandon()
            self._slots.release()
            why = "the connection to PostgreSQL has been closed" if self._closed else f"no call of PostgreSQL: {error}"
            raise DatabaseUnavailable(why) from error
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def _perform(self, call: "_Call", work: Callable[[Connection], T], seconds: float) -> T:
        self._current.call = call
        self._calls.add(call)
        try:
            return self._transact(call, work, seconds)
        except (_Abandoned, DBAPIError, PoolTimeoutError) as error:
            if translated := unavailable(error):
                raise translated from error
            raise
        finally:
            self._calls.discard(call)
            del self._current.call
            if self._closed:
                # This call gave its connection back after the others had been closed.
                self._engine.pool.dispose()

    def _transact(self, call: "_Call", work: Callable[[Connection], T], seconds: float) -> T:
        connection = self._begin(call, seconds)
        try:
            expected = call.expected
            if (
                expected
                and call.met != expected.database_id
                and (why := installation.wrong_database(connection, expected))
            ):
                raise WrongDatabase(why)
            result = work(connection)
            if _status(connection) != TransactionStatus.INTRANS:
                # The server would answer COMMIT by rolling back, without an error.
                raise DatabaseUnavailable("PostgreSQL aborted the transaction, so nothing was written")
            connection.commit()
            return result
        finally:
            # Detach first: once closed, the connection belongs to whoever takes it from the pool next.
            with contextlib.suppress(DBAPIError):
                connection.rollback()
            call.detach()
            connection.close()

    def _begin(self, call: "_Call", seconds: float) -> Connection:
        """A connection whose transaction has begun. If it died in the pool, all connections as old as it are replaced."""
        try:
            return self._try_to_begin(call, seconds)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return self._try_to_begin(call, seconds)

    def _try_to_begin(self, call: "_Call", seconds: float) -> Connection:
        call.check()
        connection = self._connect(call)
        try:
            call.attach(_descriptor(connection.connection.dbapi_connection))
            connection.begin()
            asks = installation.READ_ID if call.expected else ""
            call.met = _begin_on_server(connection, f"SET LOCAL statement_timeout = {_milliseconds(seconds)}", asks)
        except BaseException:
            call.detach()
            connection.close()
            raise
        return connection

    def _connect(self, call: "_Call") -> Connection:
        self._current.new_connection = None
        try:
            return self._engine.connect()
        except BaseException:
            # SQLAlchemy asks a new connection a few things first, and leaves it open if one of them fails.
            call.detach()
            if self._current.new_connection is not None:
                self._current.new_connection.close()
            raise
        finally:
            del self._current.new_connection

    def _attach_new_connection(self, dbapi_connection: Any, record: Any) -> None:
        self._current.new_connection = dbapi_connection
        self._current.call.attach(_descriptor(dbapi_connection))


class _Call:
    """A call's hold on its socket, so that another thread can end the call."""

    def __init__(self, expected: installation.ExpectedDatabase | None) -> None:
        self.expected = expected
        # The id that the database told; read only if a certain one is expected.
        self.met: str | None = None
        self._lock = threading.Lock()
        self._abandoned = False
        self._socket: socket.socket | None = None

    def check(self) -> None:
        """Raises if the caller has given up."""
        if self._abandoned:
            raise _Abandoned("the caller has given up")

    def attach(self, descriptor: int) -> None:
        """Takes hold of a duplicate: the driver may close its own descriptor, and the number may be given to another socket."""
        self.detach()
        with self._lock:
            self.check()
            self._socket = socket.socket(fileno=os.dup(descriptor))

    def detach(self) -> None:
        """Lets go of the socket, which stays open."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def abandon(self) -> None:
        """Ends the call: whatever waits for an answer gets an error now, and nothing more is sent."""
        with self._lock:
            self._abandoned = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


def _begin_on_server(connection: Connection, first: str, asks: str) -> str | None:
    """Begins a transaction with the statement `first`, and returns the answer to `asks`: a query of one value, or empty.

    All in one round trip: the driver's own BEGIN would be one more in every transaction. Always READ COMMITTED, whatever the
    server's default is: locks and triggers rely on seeing what was committed before them.
    """
    dbapi_connection: Any = connection.connection.dbapi_connection
    result = dbapi_connection.pgconn.exec_(f"BEGIN ISOLATION LEVEL READ COMMITTED; {first}; {asks}".encode())
    status = dbapi_connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        # Raise what this result says: later statements would only hear that the transaction is aborted. Closing rolls back.
        error = error_from_result(result, encoding=dbapi_connection.info.encoding)
        raise DBAPIError.instance(first, None, error, psycopg.Error, hide_parameters=True)
    if status != TransactionStatus.INTRANS:
        # This raises the failure as SQLAlchemy's error.
        connection.execute(text(first))
    answer = result.get_value(0, 0) if asks and result.ntuples else None
    return answer.decode() if answer else None


def make_engine(url: str, timeout_seconds: float, application_name: str, **pool: Any) -> Engine:
    """An engine with every timeout that client and server offer."""
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(
        parsed,
        connect_args=_connect_args(parsed, timeout_seconds, application_name),
        # No look-up of a type that nobody uses, which costs a round trip; no values in error texts.
        use_native_hstore=False,
        hide_parameters=True,
        **pool,
    )


def _connect_args(url: URL, timeout_seconds: float, application_name: str) -> dict[str, Any]:
    limit = _milliseconds(timeout_seconds)
    settings = {
        "statement_timeout": limit,
        "lock_timeout": max(1, limit // 2),
        "idle_in_transaction_session_timeout": limit,
        "timezone": "UTC",
        # The driver reads times of no other style, and one may be set for the role or the server.
        "datestyle": "ISO",
    }
    given = url.query.get("options", ())
    options = [given] if isinstance(given, str) else list(given)
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": application_name,
        # Whatever a URL or PGCLIENTENCODING says: appending to the audit chain sends UTF-8 bytes.
        "client_encoding": "utf8",
        "options": " ".join([*options, *(f"-c {name}={value}" for name, value in settings.items())]),
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": limit,
        # Prepared statements break under a running process when a migration changes a table.
        "prepare_threshold": None,
    }


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _status(connection: Connection) -> TransactionStatus:
    dbapi_connection: Any = connection.connection.dbapi_connection
    return TransactionStatus(dbapi_connection.info.transaction_status)


def _descriptor(dbapi_connection: Any) -> int:
    return int(dbapi_connection.fileno())


def unavailable(error: Exception) -> DatabaseUnavailable | None:
    """The DatabaseUnavailable that `error` means; None if it is a bug of ours, such as a violated constraint."""
    if isinstance(error, _Abandoned | PoolTimeoutError):
        return DatabaseUnavailable("PostgreSQL did not answer in time")
    if not isinstance(error, DBAPIError):
        return None
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate in _MISSING_SCHEMA:
        is_too_old = "pg_input_is_valid" in str(error.orig)
        return DatabaseUnavailable(
            f"{_first_line(error)} ({'AIS needs PostgreSQL 16 or newer' if is_too_old else 'run `ais migrate`'})"
        )
    if sqlstate in _MISSING_RIGHT:
        return DatabaseUnavailable(
            f"{_first_line(error)} (GRANT it to the role of AIS_DATABASE_URL: docs/operations.md, Two roles)"
        )
    if sqlstate is None and "invalid connection option" in str(error.orig):
        # Refused before anything was sent: a parameter of the URL.
        return DatabaseUnavailable(f"{_first_line(error)} (check AIS_DATABASE_URL)")
    ours = not isinstance(error, OperationalError | InterfaceError) and not error.connection_invalidated
    ours = ours and sqlstate not in _READ_ONLY_SERVER and not str(sqlstate).startswith(_INTERNAL)
    return None if ours else DatabaseUnavailable(_first_line(error))


def _first_line(error: DBAPIError) -> str:
    lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    return f"PostgreSQL: {lines[0]}"[:MAX_TEXT_CHARS]
