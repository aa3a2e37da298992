"""One process per agent: an agent that hangs or crashes loses only its own vote, and no other agent notices.

One shared pool would not do. Its processes take calls from one pipe under one lock. An agent killed while it holds that lock
stalls all others; one that dies between two calls breaks the pool. And whatever an agent does to its interpreter (a thread,
a signal handler, a changed numpy setting) affects the next agent there.
"""

import asyncio
import multiprocessing
import pickle
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from pebble import CONSTS, ProcessExpired, ProcessPool

from activities.agents import child
from activities.agents.catalogue import InstalledAgent
from activities.agents.port import Arguments
from activities.agents.reply import Reply, failed
from activities.agents.runner import AgentAnswer, answer_of
from domain.trading.proposals import FailureKind
from storage.own_thread import in_own_thread

PRELOADED = ["numpy", "pebble", "activities.agents.child", "activities.agents.forkserver"]

LOAD_SECONDS = 20.0
"""How long an agent may take to be imported."""

PATIENCE_SECONDS = 1.0
"""How long a cycle waits for an agent that is still being imported, before it goes on without it."""

GRACE_SECONDS = 1.0
"""If the pool has not ended a process at its time limit, the process ends itself this much later, and the call is given up."""

START_SECONDS = 10.0
"""How long a process may take to be started, before its agent is imported."""

END_SECONDS = 5.0
"""How long the end of a process is waited for. A process that an agent has forked may hold up the pool's threads for ever."""


LOOK_SECONDS = 0.25
"""How often pebble looks for calls that are over their time and for processes that are gone, with two threads for each agent.
At its own ten times a second that costs a desk at rest more than its cycles do."""


class NotStarted(Exception):
    """An agent's process did not start in time; the text says how long that was."""


class AgentPool:
    """The agents of a desk, each in its own process, all called at the same time. Starts nothing until `open`."""

    def __init__(self, agents: Sequence[InstalledAgent], seconds: float) -> None:
        CONSTS.sleep_unit = LOOK_SECONDS
        self._processes = {agent.name: AgentProcess(agent, seconds) for agent in agents}

    @property
    def names(self) -> list[str]:
        """All of them, in their order."""
        return list(self._processes)

    async def open(self) -> None:
        """Starts and imports all agents, so that the first cycle need not wait. Otherwise `ask` does it."""
        await asyncio.gather(*(process.load() for process in self._processes.values()))

    async def ask(self, names: Iterable[str], arguments: Arguments) -> list[AgentAnswer]:
        """Returns an answer of each agent, after the time limit at the latest (plus that of loading it, if it is not loaded)."""
        payload = pickle.dumps(arguments)
        return await asyncio.gather(*(self._processes[name].ask(payload) for name in names))

    async def close(self) -> None:
        """Ends every process."""
        await asyncio.gather(*(process.close() for process in self._processes.values()))


class AgentProcess:
    """One agent's process. It starts when first needed, and again after the worker ended it."""

    def __init__(self, agent: InstalledAgent, seconds: float) -> None:
        self._agent = agent
        self._seconds = seconds
        self._pool: ProcessPool | None = None
        self._loading: asyncio.Task[Reply] | None = None
        self._starting = asyncio.Lock()

    async def ask(self, payload: bytes) -> AgentAnswer:
        """The agent's answer to the arguments in the payload. Never raises."""
        started = time.perf_counter()
        try:
            reply = await asyncio.wait_for(self.load(), PATIENCE_SECONDS)
        except TimeoutError:
            reply = failed(FailureKind.TIMED_OUT, "it is still being imported")
        if reply.failure is None:
            reply = await self._run(child.answer, self._agent, payload, limit=self._seconds)
            if reply.failure in (FailureKind.TIMED_OUT, FailureKind.DIED):
                self._loading = None  # Its process is gone, and with it everything that was imported there.
        return answer_of(self._agent.name, reply, time.perf_counter() - started)

    async def load(self) -> Reply:
        """Imports the agent unless that is done. Returns an empty reply, or why it cannot be imported."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._run(child.load, self._agent, limit=LOAD_SECONDS))
        loading = self._loading
        reply = await asyncio.shield(loading)
        if reply.failure is None:
            return reply
        if self._loading is loading:
            self._loading = None  # The next call tries again.
        known = reply.failure is FailureKind.UNLOADABLE
        return reply if known else failed(FailureKind.UNLOADABLE, f"importing it: {reply.error}")

    async def close(self) -> None:
        """Ends the process."""
        if self._loading:
            self._loading.cancel()
        self._loading = None
        await self._drop_pool()

    async def _run(self, function: Callable[..., bytes], *args: object, limit: float) -> Reply:
        try:
            pool = await self._started_pool(max(limit, START_SECONDS))
            return Reply.model_validate_json(await self._answered(pool, function, *args, limit=limit))
        except TimeoutError:
            return failed(FailureKind.TIMED_OUT, f"it took longer than {limit:g} s")
        except ProcessExpired as error:
            if error.exitcode == -signal.SIGALRM:
                return failed(FailureKind.TIMED_OUT, f"it took longer than {limit:g} s")
            how = (
                f"was ended by signal {-error.exitcode}"
                if error.exitcode < 0
                else f"ended with exit code {error.exitcode}"
            )
            return failed(FailureKind.DIED, f"its process {how}")
        except BrokenProcessPool:  # It ended before Pebble knew which call it had taken.
            return failed(FailureKind.DIED, "its process ended")
        except Exception as error:  # Whatever happened to this process, the other agents' answers must not be lost.
            return failed(FailureKind.DIED, error)

    async def _answered(self, pool: ProcessPool, function: Callable[..., bytes], *args: object, limit: float) -> bytes:
        """What the process answers. Ends it and raises TimeoutError if it has not even taken the call.

        Pebble ends a process only at the limit of a call that the process has taken. One that hangs between two calls, in a
        thread that its agent left behind, would get every later call in vain.
        """
        future = pool.schedule(function, (*args, limit + GRACE_SECONDS), timeout=limit)
        patience = asyncio.timeout(limit + GRACE_SECONDS)
        try:
            async with patience:
                sent: bytes = await asyncio.wrap_future(future)
        except TimeoutError:
            if patience.expired() and self._pool is pool:
                await self._drop_pool()
            raise
        return sent

    async def _started_pool(self, seconds: float) -> ProcessPool:
        try:
            async with asyncio.timeout(seconds):
                return await self._running_pool()
        except TimeoutError:
            raise NotStarted(f"its process did not start within {seconds:g} s") from None

    async def _running_pool(self) -> ProcessPool:
        async with self._starting:
            if self._pool is None or not self._pool.active:
                # Also if the process died between two calls, which breaks its pool.
                await self._drop_pool()
                # Fork a small process that has imported numpy already, not this one with its threads and sockets.
                context = multiprocessing.get_context("forkserver")
                context.set_forkserver_preload(PRELOADED)
                pool = ProcessPool(max_workers=1, initializer=child.begin, context=context)
                # In a thread, since the very first process waits until the fork server has imported numpy.
                await in_own_thread(lambda: pool.active)
                self._pool = pool
            return self._pool

    async def _drop_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            with suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await in_own_thread(pool.join)
