"""A migrated database, one a module."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, NullPool, create_engine

from storage.database import make_engine
from tests.storage.builders import Undone


@pytest.fixture(scope="module")
def migrated(new_database_url: Callable[[], str]) -> Iterator[Connection]:
    """A connection to a database of the module's own, for tests that need no Database."""
    engine = create_engine(new_database_url(), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
        connection.rollback()
    engine.dispose()


@pytest.fixture(scope="module")
def kept_open(new_database_url: Callable[[], str]) -> Iterator[Connection]:
    """A connection as a worker has it, to a database that stays empty."""
    engine = make_engine(new_database_url(), 5, "ais-test")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def undone(kept_open: Connection) -> Iterator[Undone]:
    """An empty database that a test may spoil; whatever it does is rolled back, which is a tenth of what a new one costs."""
    kept_open.rollback()
    yield Undone(kept_open)
    kept_open.rollback()
