"""Fixtures of the API's tests."""

from collections.abc import AsyncIterator

import pytest

from api import logs
from tests.api.world import World
from tests.temporal import temporal

logs.configure("WARNING", "console")

__all__ = ["temporal", "world"]


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
