"""`ais audit` and `ais keys` with a database that is away, at first or from some step on: it is told, and nothing is lost."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, text
from typer.testing import CliRunner, Result

from cli.app import app
from domain.audit import ChainWalk
from storage import keys as stored_keys
from storage.audit import chain, checkpoints, exporting, verifying
from storage.database import Database, DatabaseUnavailable
from storage.decisions import insert_decisions
from tests.postgres import Server
from tests.storage.builders import make_decision

AWAY = "postgresql://nobody@127.0.0.1:1/none"
ROWS = 7
THOROUGH = partial(pytest.param, marks=pytest.mark.thorough)


class Place:
    """A database with a chain, and how to break off what works with it."""

    def __init__(self, url: str, folder: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url, self.folder, self.postgres, self.monkeypatch = url, folder, postgres, monkeypatch
        self._is_down = False

    def scalar(self, query: str) -> Any:
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            return connection.scalar(text(query))

    def killed_at(self, module: Any, name: str, *, after: bool = False) -> None:
        """PostgreSQL gets a kill -9 when this is called first, or when it has done its work."""
        really = getattr(module, name)

        def kills(*args: Any, **named: Any) -> Any:
            if not after:
                self._kill()
            found = really(*args, **named)
            self._kill()
            return found

        self.monkeypatch.setattr(module, name, kills)

    def _kill(self) -> None:
        if not self._is_down:
            self.postgres.kill()
        self._is_down = True

    def again(self) -> None:
        """PostgreSQL runs again, and nobody kills it."""
        self.monkeypatch.undo()
        configure(self.url, self.folder, self.monkeypatch)
        if self._is_down:
            self.postgres.start_again()
        self._is_down = False


def configure(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("AIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIS_DATABASE_URL", url)
    monkeypatch.setenv("AIS_AUDIT_KEY", str(folder / "key.pem"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(verifying, "ROWS_A_FETCH", 2)


@pytest.fixture
def place(
    new_database_url: Callable[[], str], tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        rows = insert_decisions(connection, [make_decision() for _ in range(ROWS)])
        chain.append(connection, map(chain.decision_entry, rows))
    configure(url, tmp_path, monkeypatch)
    assert ais("audit", "key").exit_code == 0
    made = Place(url, tmp_path, postgres, monkeypatch)
    yield made
    made.again()


def ais(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def assert_told(done: Result, status: int) -> None:
    """One line that says what is wrong, the status of the contract, and no traceback."""
    assert done.exit_code == status, (done.stdout, done.stderr, done.exception)
    assert isinstance(done.exception, SystemExit)
    (line,) = [line for line in done.stderr.strip().splitlines() if not line.endswith("rows so far …")]
    assert "PostgreSQL" in line or "database" in line, line


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("audit verify", 2),
        ("audit totals", 1),
        ("audit checkpoint", 1),
        ("audit export all.ndjson", 1),
        ("audit accept --reason restored --desk main", 1),
        ("keys create alice --role viewer", 1),
        ("keys list", 1),
        ("keys revoke alice", 1),
        ("keys rotate alice", 1),
    ],
)
def test_without_the_database_each_command_says_so_in_a_line_and_leaves_no_file(
    command: str, status: int, place: Place
) -> None:
    place.monkeypatch.setenv("AIS_DATABASE_URL", AWAY)
    done = ais(*command.split())
    assert_told(done, status)
    assert done.stdout == ""
    assert [path.name for path in place.folder.iterdir()] == ["key.pem"]


def test_a_verification_that_loses_the_database_proves_nothing_and_can_be_repeated(place: Place) -> None:
    place.killed_at(ChainWalk, "take")
    assert_told(ais("audit", "verify"), 2)
    place.again()
    done = ais("audit", "verify")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"{ROWS} rows checked: the chain is whole.")


@pytest.mark.parametrize(
    ("module", "name", "after"),
    [(exporting, "newest_checkpoint", False), (exporting, "record", False), (exporting, "record", True)],
    ids=["while the rows are copied", "before it is recorded", "before its record is committed"],
)
def test_an_export_that_loses_the_database_leaves_no_file_and_can_be_repeated(
    module: Any, name: str, after: bool, place: Place
) -> None:
    place.killed_at(module, name, after=after)
    assert_told(ais("audit", "export", "all.ndjson"), 1)
    assert [path.name for path in place.folder.iterdir()] == ["key.pem"]
    place.again()
    assert place.scalar("SELECT count(*) FROM audit WHERE kind = 'export'") == 0
    assert ais("audit", "export", "all.ndjson").exit_code == 0
    assert ais("audit", "verify", "--export", "all.ndjson").exit_code == 0
    assert place.scalar("SELECT count(*) FROM audit WHERE kind = 'export'") == 1


@pytest.mark.parametrize(("name", "after"), [("take", False), THOROUGH("keep", False), ("keep", True)])
def test_a_checkpoint_that_loses_the_database_is_not_printed_and_can_be_repeated(
    name: str, after: bool, place: Place
) -> None:
    place.killed_at(checkpoints, name, after=after)
    done = ais("audit", "checkpoint")
    assert_told(done, 1)
    assert done.stdout == ""
    place.again()
    assert place.scalar("SELECT count(*) FROM audit_checkpoints") == 0
    assert ais("audit", "checkpoint").stdout.startswith('{"checkpoint":')
    assert ais("audit", "verify").exit_code == 0


@pytest.mark.parametrize(
    ("command", "after"),
    [
        ("create bob --role viewer", False),
        ("rotate alice", True),
        ("revoke alice", True),
        THOROUGH("create bob --role viewer", True),
        THOROUGH("rotate alice", False),
        THOROUGH("revoke alice", False),
    ],
)
def test_a_change_of_a_key_that_loses_the_database_shows_no_key_and_can_be_repeated(
    command: str, after: bool, place: Place
) -> None:
    assert ais("keys", "create", "alice", "--role", "viewer").exit_code == 0
    place.killed_at(stored_keys, command.split(maxsplit=1)[0], after=after)
    done = ais("keys", *command.split())
    assert (done.exit_code, done.stdout) == (1, "")
    assert "not known whether" in done.stderr
    place.again()
    assert ais("keys", *command.split()).exit_code == 0
    found = ais("audit", "verify")
    assert found.exit_code == 0, found.stdout


async def test_an_append_to_a_database_that_hangs_ends_with_its_call_and_is_not_there(place: Place) -> None:
    """It waits in libpq, where no time-out of the driver reaches it. The call's own clock does."""
    database = Database(place.url, timeout_seconds=1, application_name="ais-test")
    with ExitStack() as stack:

        def work(connection: Connection) -> bool:
            rows = insert_decisions(connection, [make_decision()])
            stack.enter_context(place.postgres.hung())
            return chain.append(connection, map(chain.decision_entry, rows))

        with pytest.raises(DatabaseUnavailable, match="did not answer within 1 s"):
            await database.run(work)
    database.close()
    assert place.scalar("SELECT count(*) FROM audit") == ROWS
    assert ais("audit", "verify").exit_code == 0
