"""The stack: its parts, the order in which they start and stop, and what it records for other processes.

Start: lock, orphans of a killed run, ports, PostgreSQL and Temporal, schema, worker and API, coordinator. Stop: API,
worker, Temporal, PostgreSQL.
"""

import asyncio
import signal
from dataclasses import replace
from functools import partial

from cli.dev import desk
from cli.dev.config import Key, StackConfig, find_key
from cli.dev.console import Console, by_hand, overview, refused
from cli.dev.environment import adopt
from cli.dev.errors import PartFailed
from cli.dev.folder import DataFolder
from cli.dev.orphans import end_orphans
from cli.dev.ports import PortRequest, claim, free_port
from cli.dev.postgres import ROLE, Postgres
from cli.dev.process import Child
from cli.dev.programs import Api, Worker
from cli.dev.redis import Redis
from cli.dev.supervisor import Part, Supervisor
from cli.dev.temporal import Temporal

DESK_POLL_SECONDS = 1.0


class Stack:
    """One run of `ais dev`."""

    def __init__(self, config: StackConfig, console: Console) -> None:
        self.config = config
        self.ports = config.ports
        self.folder = DataFolder(config.data_dir)
        self.postgres = Postgres(self.folder.postgres, self._child("postgres", Postgres.name))
        self.supervisor = Supervisor(console, self._record)
        self._console = console
        self._key = find_key()
        self._hasten = asyncio.Event()

    async def run(self) -> None:
        """Runs until SIGINT, SIGTERM or SIGHUP. Stops everything and raises StackError if the stack cannot come up."""
        adopt(self.config.desk_settings())
        self.folder.create()
        self.folder.lock()
        work = asyncio.create_task(self._work())

        def first_or_second() -> None:
            if work.done() or work.cancelling():
                self._hasten.set()
            work.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, first_or_second)
        try:
            await work
        except asyncio.CancelledError:
            self._console.say("stopping (press Ctrl-C again to stop at once)")
        finally:
            await self.supervisor.stop(self._hasten)
            # End whatever a part has started and left running.
            await asyncio.to_thread(end_orphans, self.folder.path, self.folder.postgres)
            self.postgres.forget()
            self.folder.forget()
            self.folder.unlock()

    async def _work(self) -> None:
        await self._clear_the_ground()
        child = self._child("temporal", Temporal.name)
        temporal = Temporal(child, self.folder.temporal_db, self.ports.temporal, self.ports.ui)
        redis = [Redis(self._child("redis", Redis.name), self.folder.path, self.ports.redis)]
        await self.supervisor.bring_up(self.postgres, temporal, *(redis if self.config.redis else []))
        await self._migrate()
        parts: dict[str, Part] = {
            "worker": Worker(self._child("worker", Worker.name), self._new_metrics_port),
            "api": Api(self._child("api", Api.name), self.ports.api),
        }
        for name in self.config.without:
            self._console.progress(name, by_hand(name, self.folder.path))
        await self.supervisor.bring_up(*(part for name, part in parts.items() if self.config.has(name)))
        async with asyncio.TaskGroup() as group:
            group.create_task(self.supervisor.keep_up())
            await self._open_desk()

    async def _clear_the_ground(self) -> None:
        """Ends what a killed run left behind, before checking the ports: it may hold them."""
        if count := await asyncio.to_thread(end_orphans, self.folder.path, self.folder.postgres):
            self._console.progress("orphans", f"ended {count} processes left by a killed run")
        asked = {
            "temporal": PortRequest(self.ports.temporal, "Temporal", "--temporal-port"),
            "ui": PortRequest(self.ports.ui, "the Temporal web UI", "--ui-port"),
            "metrics": PortRequest(0, "", ""),
            "sdk_metrics": PortRequest(0, "", ""),
            "redis": PortRequest(0, "", ""),
        }
        if self.config.has("api") or self.ports.api == 0:
            asked["api"] = PortRequest(self.ports.api, "the API", "--port")
        self.ports = replace(self.ports, **dict(zip(asked, claim(asked.values()), strict=True)))
        self.folder.rotate_logs()
        self._record()

    def _record(self) -> None:
        key_file = None if self._key else self.folder.make_api_key()
        pids = {part.name: part.child.pid for part in self.supervisor.parts if not part.child.ended()}
        self.running = self.config.record(self.ports, self.postgres.url, self.postgres.owner_url, key_file, pids)
        self.folder.record(self.running)

    async def _migrate(self) -> None:
        # Importing Alembic takes half a second; the other parts come up meanwhile.
        from storage import migrate
        from storage.database import DatabaseUnavailable
        from storage.rights import NotGranted

        owner = self.postgres.owner_url
        try:
            await asyncio.to_thread(migrate.upgrade, owner, partial(self._console.progress, "schema"))
            await asyncio.to_thread(migrate.grant, owner, ROLE)
        except (DatabaseUnavailable, migrate.SchemaOutOfDate, NotGranted) as error:
            raise PartFailed("schema", str(error)) from error
        self._console.progress("schema", "up to date")

    async def _open_desk(self) -> None:
        said = ""
        # Retries while a store does not answer yet, as on a busy machine. Any other refusal is for a person to resolve.
        while isinstance(found := await desk.start(self._console.say), desk.StartRefusal) and found.passing:
            if found.why != said:
                self._console.progress("coordinator", f"not yet: {found.why}")
                said = found.why
            await asyncio.sleep(DESK_POLL_SECONDS)
        if isinstance(found, str):
            self._console.progress("coordinator", found)
        key = self._key or Key(self.folder.api_key, str(self.folder.api_key), f"$(cat '{self.folder.api_key}')")
        made = None if self._key else self.folder.api_key.read_text().strip()
        self._console.say(overview(self.running, key.place, key.shell, made))
        if isinstance(found, desk.StartRefusal):
            self._console.say(refused(found.why, self.folder.path))
            while not await desk.is_open(self.folder.path):
                await asyncio.sleep(DESK_POLL_SECONDS)
        self._console.say("ready")
        await desk.compare(self._console.say)

    def _new_metrics_port(self) -> int:
        """Picks new ports at every start of the worker: while it was down, another process may have taken the old ones."""
        self.ports = replace(self.ports, metrics=free_port(), sdk_metrics=free_port())
        self._record()
        return self.ports.metrics

    def _child(self, log: str, name: str) -> Child:
        return Child(name, self.folder.path, self.folder.log(log))
