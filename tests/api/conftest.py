"""Fixtures of the API's tests."""

import logging
from collections.abc import AsyncIterator

import pytest

from api import manual
from settings import LogSettings
from startup import configure_logging
from tests.api.world import World
from tests.temporal import temporal

configure_logging(LogSettings(log_level="WARNING", log_format="console"))
# A thread writes the log of a process, and pytest would show its lines between two tests.
_captured = logging.StreamHandler()
_captured.setFormatter(logging.getLogger().handlers[0].formatter)
logging.getLogger().handlers[:] = [_captured]

__all__ = ["temporal", "world"]


@pytest.fixture(autouse=True)
def _without_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether somebody has built the manual here changes no test; those of the site bring their own."""
    monkeypatch.setattr(manual, "files", dict)


@pytest.fixture(scope="session")
def shared_world() -> World:
    """The one application that most tests use."""
    return World()


@pytest.fixture
async def world(shared_world: World) -> AsyncIterator[World]:
    """An API over a desk in memory."""
    async with shared_world.running():
        yield shared_world


@pytest.fixture
async def new_world() -> AsyncIterator[World]:
    """The same with an application, and so with counters, of its own."""
    async with World().running() as made:
        yield made
