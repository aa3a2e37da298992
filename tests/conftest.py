"""Fixtures that several suites share."""

from tests.postgres import database_url, new_database_url, postgres, postgres_url
from tests.temporal import short_history_temporal, temporal

__all__ = ["database_url", "new_database_url", "postgres", "postgres_url", "short_history_temporal", "temporal"]
