"""The two stores of a chaos run, kept over its rounds: Temporal's server and PostgreSQL, which faults stop, kill and starve."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import psutil
import psycopg
from psycopg import sql
from sqlalchemy import make_url
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from cli.dev.ports import free_port
from cli.dev.temporal import DYNAMIC_CONFIG, NAMESPACE, SEARCH_ATTRIBUTES, temporal_program
from storage import migrate
from tests.postgres import Server, plain_url
from workflows.converter import DATA_CONVERTER

# A round of eight seconds sees a few continuations; the server's default is 4,096 events.
SUGGEST_AFTER = 150
ROLE = "desk"
DISK_MEGABYTES = 320
NOTHING_MORE = sql.SQL("")
# What every change of a row was, and when its transaction was committed: the record that AIS does not write itself.
AUDIT = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.changes (
    n bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), place text, op text, row jsonb
);
CREATE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO chaos.changes (place, op, row) VALUES (TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, TG_OP, to_jsonb(NEW));
    IF to_jsonb(NEW) ->> 'selected_order_id' IS NOT NULL THEN
        PERFORM pg_notify('chaos_decided', to_jsonb(NEW) ->> 'selected_order_id');
    END IF;
    RETURN NULL;
END $$;
"""
# Where an order's transaction waits, and where a cancel fails, for as long as a scene wants it to (scenes.py); nobody notices
# these locks otherwise.
HOLDS = """
CREATE FUNCTION chaos.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint);
    RETURN NULL;
END $$;
GRANT USAGE ON SCHEMA chaos TO PUBLIC;
CREATE TRIGGER hold_the_insert AFTER INSERT ON paper.orders
    FOR EACH ROW WHEN (NOT NEW.reduce_only) EXECUTE FUNCTION chaos.hold(1);
CREATE CONSTRAINT TRIGGER zz_hold_the_commit AFTER INSERT ON paper.orders DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NOT NEW.reduce_only) EXECUTE FUNCTION chaos.hold(2);
CREATE CONSTRAINT TRIGGER zz_hold_the_reduction AFTER INSERT ON paper.orders DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.reduce_only) EXECUTE FUNCTION chaos.hold(4);
CREATE FUNCTION chaos.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(TG_ARGV[0]::bigint) THEN
        RAISE EXCEPTION 'the venue refuses cancels';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_the_cancel BEFORE UPDATE ON paper.orders
    FOR EACH ROW WHEN (NEW.status = 'canceled') EXECUTE FUNCTION chaos.refuse(3);
"""
WATCHED = ("public.decisions", "public.instructions", "public.desks", "paper.orders")
NOTE = "CREATE TRIGGER chaos AFTER INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION chaos.note()"


class Postgres(Server):
    """A server that remembers when each transaction was committed, with a template of a migrated database."""

    def __init__(self) -> None:
        # A disk of its own where the tests may mount one, so that it can be full without the machine's being so.
        self._disk = _mounted()
        with _temporary_files_in(self._disk):
            super().__init__()
        for setting in ("max_wal_size = '64MB'", "min_wal_size = '32MB'"):
            self._execute(sql.SQL("ALTER SYSTEM SET " + setting))
        self._execute(sql.SQL("ALTER SYSTEM SET track_commit_timestamp = on"))
        # A commit that AIS was told of has to survive kill -9 of the server; without this it is a promise for later.
        self._execute(sql.SQL("ALTER SYSTEM SET synchronous_commit = on"))
        self._execute(sql.SQL("ALTER SYSTEM SET max_connections = 300"))
        self.kill()
        self.start_again()
        # AIS is no superuser: a superuser has no connection limit.
        self._execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(ROLE)))
        self._template = self._create()
        self._prepare()

    @property
    def socket(self) -> str:
        """The path of its Unix socket."""
        return f"{self.folder / 'data'}/.s.PGSQL.5432"

    def url_of(self, database: str, user: str = "postgres") -> str:
        """Past every proxy."""
        return make_url(self.url).set(database=database, username=user).render_as_string(hide_password=False)

    def new_database(self) -> str:
        """A copy of the template, which is a database of its own; its name."""
        name = self._create(sql.SQL("TEMPLATE {}").format(sql.Identifier(self._template)))
        self.run(name, "UPDATE installation SET database_id = gen_random_uuid()")
        return name

    def run(self, database: str, *statements: str) -> None:
        """As superuser, past every proxy."""
        with psycopg.connect(plain_url(self.url_of(database)), autocommit=True, connect_timeout=10) as connection:
            for statement in statements:
                connection.execute(cast(Any, statement))

    def drop(self, database: str) -> None:
        """With whoever is connected."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))

    @property
    def has_a_disk(self) -> bool:
        """Whether it has a disk of its own, which can be filled."""
        return self._disk is not None

    def fill_disk(self) -> None:
        """Until the last byte."""
        if self._disk:
            with contextlib.suppress(OSError), (self._disk / "ballast").open("wb", buffering=0) as ballast:
                while True:
                    ballast.write(bytes(1 << 16))

    def free_disk(self) -> None:
        """There is room again. A server that could not write its own log has ended."""
        if self._disk:
            (self._disk / "ballast").unlink(missing_ok=True)
            if not self._answers():
                self.kill()
                self.start_again()

    def stop(self) -> None:
        """With its disk."""
        super().stop()
        if self._disk:
            subprocess.run(["umount", "--lazy", self._disk], check=False)

    def _answers(self) -> bool:
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            with contextlib.suppress(psycopg.Error):
                self.run("postgres", "SELECT 1")
                return True
            time.sleep(0.1)
        return False

    def _processes(self) -> list[psutil.Process]:
        try:
            return super()._processes()
        except (OSError, psutil.NoSuchProcess):
            return []

    def stop_all(self) -> None:
        """SIGSTOP to every process of it."""
        for process in self._processes():
            process.suspend()

    def resume_all(self) -> None:
        """SIGCONT to every process of it."""
        for process in self._processes():
            with contextlib.suppress(Exception):
                process.resume()

    def _create(self, more: sql.Composable = NOTHING_MORE) -> str:
        name = f"chaos_{uuid.uuid4().hex[:12]}"
        owned = sql.SQL("CREATE DATABASE {} OWNER {} {}").format(sql.Identifier(name), sql.Identifier(ROLE), more)
        self._execute(owned)
        return name

    def _prepare(self) -> None:
        migrate.upgrade(self.url_of(self._template, ROLE))
        self.run(self._template, AUDIT, *(NOTE.format(table) for table in WATCHED), HOLDS)


def _mounted() -> Path | None:
    """A small file system in memory; None where the user may not mount."""
    folder = Path(tempfile.mkdtemp(prefix="ais-disk-", dir=os.environ["TMPDIR"]))
    folder.chmod(0o755)
    if not (mount := shutil.which("mount")):
        return None
    command = [mount, "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "none", str(folder)]
    return folder if subprocess.run(command, check=False, capture_output=True).returncode == 0 else None


@contextlib.contextmanager
def _temporary_files_in(folder: Path | None) -> Iterator[None]:
    before = os.environ["TMPDIR"]
    os.environ["TMPDIR"] = str(folder or before)
    try:
        yield
    finally:
        os.environ["TMPDIR"] = before


class Temporal:
    """The development server, as a process of ours on a database file."""

    def __init__(self, folder: Path, suggest_after: int = SUGGEST_AFTER) -> None:
        self._folder = folder
        self._suggest_after = suggest_after
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Past every proxy."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """On the same port and file as before; does not wait."""
        dynamic = (*DYNAMIC_CONFIG, f"limit.historyCount.suggestContinueAsNew={self._suggest_after}")
        command = [
            temporal_program(), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self.port),
            "--db-filename", str(self._folder / "temporal.db"), "--namespace", NAMESPACE, "--log-level", "error",
            *(arg for name in SEARCH_ATTRIBUTES for arg in ("--search-attribute", f"{name}=Keyword")),
            *(arg for value in dynamic for arg in ("--dynamic-config-value", value)),
        ]  # fmt: skip
        with (self._folder / "temporal.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def client(self, seconds: float = 60.0) -> Client:
        """Once it answers."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                client = await Client.connect(self.address, data_converter=DATA_CONVERTER)
                request = DescribeNamespaceRequest(namespace=NAMESPACE)
                await client.workflow_service.describe_namespace(request, timeout=timedelta(seconds=2))
                return client
            except (RPCError, RuntimeError):
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.1)

    def send(self, number: int) -> None:
        """A signal."""
        assert self._process
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL, and until it is gone."""
        self.send(signal.SIGKILL)
        if self._process:
            self._process.wait()
