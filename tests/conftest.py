"""Fixtures that several suites share."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.postgres import database_url, new_database_url, postgres, postgres_url
from tests.temporal import short_history_temporal, temporal

__all__ = ["database_url", "new_database_url", "postgres", "postgres_url", "short_history_temporal", "temporal"]

_SCRATCH = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """A folder for what processes leave behind that a test kills; whoever runs in parts (xdist) has one for all of them."""
    if hasattr(config, "workerinput"):
        return
    scratch = config.stash[_SCRATCH] = Path(tempfile.mkdtemp(prefix="ais-"))
    # PostgreSQL runs as a user of its own, and sockets need short paths.
    scratch.chmod(0o1777)
    os.environ["TMPDIR"] = str(scratch)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nothing stays."""
    if (scratch := config.stash.get(_SCRATCH, None)) is not None:
        shutil.rmtree(scratch, ignore_errors=True)
