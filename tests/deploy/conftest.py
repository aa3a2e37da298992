"""Fixtures of the deployment tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.dev_stack import DevStack


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[DevStack]:
    stack = DevStack(tmp_path.resolve() / "desk")
    yield stack
    stack.clean_up()


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory and an environment without settings of ours."""
    for name in [name for name in os.environ if name.startswith(("AIS_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
