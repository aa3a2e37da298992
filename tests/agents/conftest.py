"""A folder on the path, into which a test installs packages."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents.builders import PLUGIN


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for module in PLUGIN.glob("*.py"):
        sys.modules.pop(module.stem, None)
