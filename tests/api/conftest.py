"""Fixtures of the API's tests."""

from collections.abc import AsyncIterator

import pytest

from api import logs
from tests.api.world import World, running_world
from tests.temporal import temporal

logs.configure("WARNING", "console")

__all__ = ["temporal", "world"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """An API over a desk in memory."""
    async with running_world() as made:
        yield made
