"""A worker process ends, whatever the SDK does."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import cast

import pytest
from temporalio.worker import Worker

import worker
from activities.claiming import StartCheck
from startup import NotUp


class Stuck:
    """A worker of the SDK whose polls never end (temporalio/sdk-rust#1297)."""

    task_queue = "queue"

    async def run(self) -> None:
        await asyncio.Event().wait()

    shutdown = run


class Ours:
    """Finds nothing against serving the desk."""

    async def refusal(self) -> str | None:
        return None


async def nothing() -> None:
    """There is no server whose polls could be ended."""


def run_until(stop: asyncio.Event, broken: asyncio.Event) -> Awaitable[None]:
    shared, own = cast(Worker, Stuck()), cast(Worker, Stuck())
    workers = worker.Workers(shared, own, nothing, timedelta(), broken)
    gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    return worker._run_until(workers, cast(StartCheck, Ours()), stop, gone)


async def test_it_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "END_SECONDS", 0.05)
    stop = asyncio.Event()
    stop.set()
    async with asyncio.timeout(180):
        await run_until(stop, asyncio.Event())


async def test_it_ends_with_an_error_once_the_sdk_gives_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its supervisor starts another one then."""
    monkeypatch.setattr(worker, "END_SECONDS", 0.05)
    broken = asyncio.Event()
    broken.set()
    async with asyncio.timeout(180):
        with pytest.raises(NotUp, match="stopped by itself"):
            await run_until(asyncio.Event(), broken)
