"""The code that runs in an agent's own process. It sends back the JSON of a `Reply`, never an object of the agent.

Unpickling an agent's own exception on our side would run the agent's code there. One whose constructor takes two arguments
raised TypeError, and that broke the pool for good.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from activities.agents import catalogue
from activities.agents.catalogue import InstalledAgent
from activities.agents.port import Agent
from activities.agents.reply import Reply, failed, reply_of
from domain.trading.proposals import FailureKind

# A process serves one agent, so its module is imported once, and its class is instantiated once.
_loaded: dict[str, Agent] = {}


def begin() -> None:
    """Runs first in the process: from here on it can be ended at any time, and does not outlive the worker."""
    # Pebble has set a handler in Python, which has to wait while C code runs. The default action does not.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_worker, daemon=True).start()


def load(agent: InstalledAgent, seconds: float) -> bytes:
    """Imports the agent, so that the first call need not."""
    with _alarm(seconds):
        return _encoded(_loading(agent))


def answer(agent: InstalledAgent, payload: bytes, seconds: float) -> bytes:
    """Calls the agent. `payload` is a pickle of its arguments."""
    with _alarm(seconds):
        reply = _loading(agent)
        if reply.failure is None:
            arguments = pickle.loads(payload)  # noqa: S301  the worker wrote it
            try:
                reply = reply_of(_loaded[agent.name], arguments)
            except BaseException as error:  # Nobody presses Ctrl-C here: a KeyboardInterrupt is the agent's own.
                reply = failed(FailureKind.RAISED, error)
        return _encoded(reply)


def _loading(agent: InstalledAgent) -> Reply:
    try:
        if agent.name not in _loaded:
            _loaded[agent.name] = catalogue.load(agent)
    except BaseException as error:
        return failed(FailureKind.UNLOADABLE, error)
    return Reply()


def _encoded(reply: Reply) -> bytes:
    return reply.model_dump_json().encode()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Has the kernel end this process when the time is over, whatever runs in it, even if nobody else is left to notice."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _end_with_the_worker() -> None:
    """Ends this process when the worker ends, even by a kill -9: threads that the agent started would keep it alive."""
    worker = multiprocessing.parent_process()
    if worker is not None:
        worker.join()
        os.kill(os.getpid(), signal.SIGKILL)
