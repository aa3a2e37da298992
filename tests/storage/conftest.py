"""One Database a module, and desks of their own for each test."""

import uuid
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, NullPool, create_engine

from storage.database import Database


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, timeout_seconds=5, application_name="ais-test")
    yield database
    database.close()


@pytest.fixture
def desk() -> str:
    return f"desk-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def migrated(new_database_url: Callable[[], str]) -> Iterator[Connection]:
    """A connection to a database of the module's own, for tests that need no Database."""
    engine = create_engine(new_database_url(), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
        connection.rollback()
    engine.dispose()
