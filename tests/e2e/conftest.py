"""Fixtures of the fault suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.live import Live


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    desk = Live(tmp_path.resolve() / "desk")
    yield desk
    desk.clean_up()
