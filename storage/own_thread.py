"""Runs what may hang in a thread of its own.

The event loop's pool has few threads, five on a machine with one core, and the loop looks up names there. If something hangs in
each of them, the venue's connection cannot be made again, and a kill's cancels cannot be sent. And a process does not end before
the threads of a pool have ended.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_own_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises. Cancelling this ends the wait, not the work."""
    future: Future[T] = Future()
    # Running: nobody can cancel it then.
    future.set_running_or_notify_cancel()
    threading.Thread(target=_perform, args=(future, work), daemon=True).start()
    return await asyncio.wrap_future(future)


def _perform(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
