"""A migrated database, one a module."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, NullPool, create_engine


@pytest.fixture(scope="module")
def migrated(new_database_url: Callable[[], str]) -> Iterator[Connection]:
    """A connection to a database of the module's own, for tests that need no Database."""
    engine = create_engine(new_database_url(), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
        connection.rollback()
    engine.dispose()
