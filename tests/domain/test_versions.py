"""Which rules of the coordinator a worker knows."""

import pytest

from domain.desk.versions import OLDEST_VERSION, SCHEMA_VERSION, UnknownRules, check_known


def test_a_worker_knows_its_own_rules_and_those_of_the_release_before() -> None:
    for version in range(OLDEST_VERSION, SCHEMA_VERSION + 1):
        check_known(version)


@pytest.mark.parametrize("version", [OLDEST_VERSION - 1, SCHEMA_VERSION + 1])
def test_other_rules_are_refused_and_it_is_said_which_are_known(version: int) -> None:
    with pytest.raises(
        UnknownRules, match=rf"version {version}, .* versions {OLDEST_VERSION} to {SCHEMA_VERSION}: start"
    ):
        check_known(version)
