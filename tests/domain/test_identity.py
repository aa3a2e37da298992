"""Which database and account are a desk's, and when another database becomes its own."""

from datetime import timedelta
from typing import Any

from domain.desk import applying, identity
from domain.desk.carried import Carried
from domain.desk.states import CommandKind, State
from domain.desk.status import status_of
from domain.trading.market import DatabaseSeen
from tests.domain.builders import NOW, a_command, a_desk, a_tick

OWN, OTHER, THIRD = "own", "other", "third"


def seen(database_id: str, knows_desk: bool = False) -> DatabaseSeen:
    return DatabaseSeen(database_id=database_id, knows_desk=knows_desk)


def read(c: Carried, *readings: DatabaseSeen | None) -> None:
    for reading in readings:
        identity.take_database(c, reading, a_tick())


def a_desk_on(database_id: str = OWN, **changes: Any) -> Carried:
    return a_desk(database_id=database_id, **changes)


def killed() -> Carried:
    c = a_desk_on()
    applying.apply(c, a_command(CommandKind.KILL, reason="flash crash"), a_tick())
    c.latched_number, c.row_dirty = c.kill_number, False
    return c


def test_an_empty_stranger_is_taken_after_three_readings_in_a_row_and_not_before() -> None:
    c = a_desk_on()
    read(c, seen(OTHER), seen(OTHER))
    assert (c.database_id, c.state) == (OWN, State.RUNNING)
    assert any("2 so far" in warning for warning in c.warning_texts)
    read(c, seen(OTHER))
    assert c.database_id == OTHER
    assert c.warning_texts == []


def test_whatever_comes_between_ends_the_row_of_readings() -> None:
    for between in (None, seen(OWN), seen(THIRD), seen(OTHER, knows_desk=True)):
        c = a_desk_on()
        read(c, seen(OTHER), seen(OTHER), between, seen(OTHER), seen(OTHER))
        assert c.database_id == OWN, between


def test_a_write_in_the_desks_own_database_ends_the_row_of_readings() -> None:
    c = a_desk_on()
    read(c, seen(OTHER), seen(OTHER))
    identity.database_written(c, OWN, a_tick(timedelta(seconds=1)))
    assert c.database_seen_at == NOW + timedelta(seconds=1)
    read(c, seen(OTHER), seen(OTHER))
    assert c.database_id == OWN


def test_a_write_that_was_meant_for_another_database_proves_nothing_of_this_one() -> None:
    c = a_desk_on()
    for meant in (None, OTHER):
        identity.database_written(c, meant, a_tick())
    assert c.database_seen_at is None


def test_a_stranger_that_knows_the_desk_is_never_taken_and_told_with_what_to_do() -> None:
    c = a_desk_on()
    read(c, *[seen(OTHER, knows_desk=True)] * 20)
    assert c.database_id == OWN
    (warning,) = c.warning_texts
    assert OWN in warning
    assert OTHER in warning
    assert "ais restart" in warning


def test_a_running_desk_is_paused_by_another_database_and_its_row_says_why() -> None:
    c = a_desk_on()
    read(c, *[seen(OTHER)] * 3)
    assert c.state is State.PAUSED
    assert c.row_dirty
    assert OTHER in c.reason
    assert c.records[-1].summary.startswith("pause applied by database")


def test_a_killed_desk_stays_killed_and_its_latch_is_due_in_the_new_database() -> None:
    c = killed()
    before = c.latch_due
    read(c, *[seen(OTHER)] * 3)
    assert c.state is State.KILLED
    assert (before, c.latch_due) == (False, True)
    assert not c.latched
    assert c.reason == "flash crash"


def test_a_desk_that_knows_no_database_takes_the_first_that_it_reads() -> None:
    c = a_desk()
    read(c, seen(OWN, knows_desk=True))
    assert (c.database_id, c.state, c.database_seen_at) == (OWN, State.RUNNING, NOW)


def test_a_restart_that_names_another_database_makes_it_the_desks_and_leaves_it_killed() -> None:
    c = killed()
    read(c, *[seen(OTHER, knows_desk=True)] * 3)
    taking = a_command(CommandKind.RESTART, kill_number=c.kill_number, database_id=OTHER)
    applying.apply(c, taking, a_tick())
    assert (c.database_id, c.state, c.restart) == (OTHER, State.KILLED, None)
    assert c.latch_due
    assert c.commands[taking.command_id].outcome == "applied"
    applying.apply(c, a_command(CommandKind.RESTART, kill_number=c.kill_number, database_id=OTHER), a_tick())
    assert c.restart is None, "its kill has yet to be written there"


def test_a_restart_with_an_old_number_takes_no_database() -> None:
    c = killed()
    applying.apply(c, a_command(CommandKind.RESTART, kill_number=c.kill_number - 1, database_id=OTHER), a_tick())
    assert c.database_id == OWN


def test_the_account_of_the_first_reading_stands() -> None:
    c = a_desk()
    for account in (None, "first", "second"):
        identity.take_account(c, account)
    assert c.account == "first"


def test_a_fingerprint_tells_accounts_apart_and_does_not_name_them() -> None:
    assert identity.fingerprint("") == ""
    assert identity.fingerprint("desk-1") == "dd9b8562f3ff0dd3"
    assert identity.fingerprint("desk-1") != identity.fingerprint("desk-2")
    assert "desk" not in identity.fingerprint("desk-1")


def test_the_status_says_what_the_desk_belongs_to() -> None:
    status = status_of(a_desk_on(account="0123456789abcdef", database_seen_at=NOW), "run")
    assert (status.database_id, status.account, status.database_seen_at) == (OWN, "0123456789abcdef", NOW)
