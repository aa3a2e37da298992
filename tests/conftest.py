"""Fixtures that several suites share."""

from tests.postgres import database_url, new_database_url, postgres, postgres_url

__all__ = ["database_url", "new_database_url", "postgres", "postgres_url"]
