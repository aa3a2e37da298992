"""Variants of a test that go the way of one that `make test` runs."""

from functools import partial

import pytest

# A parameter that only `make test-thorough` takes.
THOROUGH = partial(pytest.param, marks=pytest.mark.thorough)
