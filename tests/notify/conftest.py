"""Targets of each test's own."""

from collections.abc import Iterator

import pytest

from tests.notify.targets import HttpTarget, MailTarget, serving


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    target = HttpTarget()
    with serving(target):
        yield target


@pytest.fixture
def other() -> Iterator[HttpTarget]:
    target = HttpTarget()
    with serving(target):
        yield target


@pytest.fixture
def mail() -> Iterator[MailTarget]:
    target = MailTarget()
    with serving(target):
        yield target
