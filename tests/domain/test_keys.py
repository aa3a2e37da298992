"""Keys: their form, their roles, and what a reading of the database may change of those that are known."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.keys import (
    ID_CHARS,
    SECRET_BYTES,
    AccessKey,
    MistypedKey,
    Role,
    digest_of,
    key_id,
    merge,
    read_key,
    write_key,
)

NOW = datetime(2026, 3, 12, 14, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


def a_key(number: int = 1, **changes: Any) -> AccessKey:
    key = AccessKey(f"{number:0{ID_CHARS}}", os.urandom(32), f"key-{number}", Role.VIEWER, None, NOW, "cli:test")
    return key._replace(**changes)


def known(*keys: AccessKey) -> dict[str, AccessKey]:
    return {key.key_id: key for key in keys}


@given(st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES), st.binary(min_size=8, max_size=8))
def test_a_key_is_read_as_it_was_written_and_its_secret_only_as_a_digest(secret: bytes, chance: bytes) -> None:
    written = write_key(key_id(chance), secret)
    found = read_key(written.encode())
    assert found is not None
    assert written.startswith(f"ais_{found.key_id}_")
    assert found.digest == digest_of(written.split("_")[2][:-6].encode())


@given(st.data())
def test_one_wrong_or_two_exchanged_characters_are_told_apart(data: st.DataObject) -> None:
    written = write_key("a1B2c3D4e5", bytes(range(SECRET_BYTES)))
    at = data.draw(st.sampled_from([place for place, character in enumerate(written[4:], 4) if character != "_"]))
    other = data.draw(st.sampled_from("0123456789abcXYZ").filter(lambda it: it != written[at]))
    exchanged = written[: at - 1] + written[at] + written[at - 1] + written[at + 1 :]
    for mistyped in {written[:at] + other + written[at + 1 :], exchanged} - {written}:
        if "_" in (written[at - 1], written[at]) and mistyped == exchanged:
            continue
        with pytest.raises(MistypedKey):
            read_key(mistyped.encode())


@pytest.mark.parametrize(
    "token", [b"", b"ais_", b"ais_x_y", b"\xff" * 66, b"a" * 66, write_key("0" * 10, b"x").encode() + b"0"]
)
def test_whatever_has_another_form_is_none_of_these_keys(token: bytes) -> None:
    assert read_key(token) is None


def test_a_role_may_do_what_those_before_it_may() -> None:
    allowed = {(role, needed) for role in Role for needed in Role if role.covers(needed)}
    assert allowed == {
        (Role.VIEWER, Role.VIEWER),
        (Role.OPERATOR, Role.VIEWER),
        (Role.OPERATOR, Role.OPERATOR),
        (Role.ADMIN, Role.VIEWER),
        (Role.ADMIN, Role.OPERATOR),
        (Role.ADMIN, Role.ADMIN),
    }


def test_a_key_holds_until_it_is_revoked_or_its_time_is_over() -> None:
    assert a_key().holds(NOW)
    assert a_key(expires_at=LATER).holds(NOW)
    assert not a_key(expires_at=NOW).holds(NOW)
    assert not a_key(revoked_at=NOW).holds(NOW)
    assert a_key().opens("any")
    assert not a_key(desks=("second",)).opens("main")


def test_a_reading_brings_what_is_new_and_what_has_ended() -> None:
    one, two = a_key(1), a_key(2)
    ended = one._replace(revoked_at=NOW, revoked_by="cli:me")
    assert merge(known(one), [ended, two]) == (known(ended, two), [], 0)


@pytest.mark.parametrize("end", [{"revoked_at": NOW, "revoked_by": "cli:me"}, {"expires_at": NOW}])
def test_a_database_that_is_old_takes_no_end_back(end: dict[str, Any]) -> None:
    fresh = a_key(expires_at=LATER)
    ended = fresh._replace(**end)
    assert merge(known(ended), [fresh]) == (known(ended), [ended], 0)


def test_a_database_that_is_empty_leaves_each_key_as_it_was_and_is_told_all_what_has_ended_first() -> None:
    working, ended = a_key(1), a_key(2, revoked_at=NOW)
    assert merge(known(working, ended), []) == (known(working, ended), [ended, working], 2)


def test_a_key_that_comes_back_after_it_vanished_is_as_revoked_as_before() -> None:
    ended = a_key(revoked_at=NOW)
    emptied = merge(known(ended), []).keys
    assert merge(emptied, [ended._replace(revoked_at=None)]).keys == known(ended)
