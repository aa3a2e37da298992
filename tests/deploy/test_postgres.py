"""The database of `ais dev`: stale files, long paths, a server that was shot."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cli.dev.orphans import end_orphans, postgres_processes
from cli.dev.postgres import MAX_SOCKET_PATH_BYTES, Postgres, socket_dir
from cli.dev.process import Child

Make = Callable[[Path], Postgres]


@pytest.fixture(scope="module")
async def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a server that was started beside what an initdb that broke off had left, and stopped."""
    folder = tmp_path_factory.mktemp("initialised")
    half = folder / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    postgres = Postgres(folder / "postgres", Child("PostgreSQL", folder, folder / "postgres.log"))
    await _up(postgres)
    await postgres.child.stop(5, asyncio.Event())
    postgres.forget()
    return folder / "postgres"


@pytest.fixture
async def make_postgres(tmp_path: Path, initialised: Path) -> AsyncIterator[Make]:
    """Servers of the test's own, whose data are copies: initdb takes twenty times as long."""
    made: list[Postgres] = []

    def make(pgdata: Path) -> Postgres:
        subprocess.run(["cp", "-a", initialised, pgdata], check=True)
        made.append(Postgres(pgdata, Child("PostgreSQL", pgdata.parent, tmp_path / "postgres.log")))
        return made[-1]

    yield make
    for postgres in made:
        await postgres.child.stop(5, asyncio.Event())
        postgres.forget()


async def _up(postgres: Postgres) -> None:
    await postgres.start()
    while not await postgres.answers():
        postgres.child.fail_if_ended()
        await asyncio.sleep(0.02)


async def test_a_server_that_was_killed_starts_again_whatever_its_pid_file_says(
    make_postgres: Make, tmp_path: Path
) -> None:
    postgres = make_postgres(tmp_path / "postgres")
    await _up(postgres)

    os.kill(postgres.child.pid or 0, signal.SIGKILL)
    await postgres.child.wait_ended()
    # The dead server's pid now belongs to somebody else who lives: us.
    pid_file = postgres.pgdata / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(pid_file.read_text().split()[0], str(os.getpid()), 1))

    await _up(postgres)
    assert await postgres.answers()


async def test_an_orphan_is_known_by_its_folder_and_no_other_server_is_touched(
    make_postgres: Make, tmp_path: Path
) -> None:
    mine, other = make_postgres(tmp_path / "mine"), make_postgres(tmp_path / "other")
    await asyncio.gather(_up(mine), _up(other))

    ended = await asyncio.to_thread(end_orphans, tmp_path / "nobody's folder", mine.pgdata)

    assert ended > 1
    assert postgres_processes(mine.pgdata) == []
    assert mine.child.ended() is not None
    assert await other.answers()


async def test_it_runs_in_a_folder_too_deep_for_a_socket_and_with_spaces_in_its_name(
    make_postgres: Make, tmp_path: Path
) -> None:
    deep = tmp_path / ("a long, spaced name " * 5) / ("b" * 80)
    deep.mkdir(parents=True)
    postgres = make_postgres(deep / "postgres")

    await _up(postgres)

    assert len(os.fsencode(postgres.socket_dir)) < MAX_SOCKET_PATH_BYTES
    assert postgres.socket_dir != postgres.pgdata
    assert postgres.socket_dir.stat().st_mode & 0o077 == 0
    await postgres.child.stop(5, asyncio.Event())
    postgres.forget()
    assert not postgres.socket_dir.exists()
    assert (postgres.pgdata / "PG_VERSION").exists()


def test_the_socket_is_in_the_data_folder_where_that_works() -> None:
    assert socket_dir(Path("/srv/desk/postgres")) == Path("/srv/desk/postgres")


def test_an_initdb_that_broke_off_is_done_again(initialised: Path) -> None:
    assert (initialised / "base").is_dir()
    assert not initialised.with_name("postgres.new").exists()
