"""The venue's own Database, and a desk of its own for each test."""

import uuid
from collections.abc import Iterator

import pytest

from storage.database import Database


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, timeout_seconds=5, application_name="ais-paper-test")
    yield database
    database.close()


@pytest.fixture
def desk() -> str:
    return f"desk-{uuid.uuid4().hex[:8]}"
