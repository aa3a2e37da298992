"""The stack: which parts there are, in which order they come and go, and what others are told.

Coming: lock, orphans of a killed run, ports, PostgreSQL and Temporal, schema, worker and API, coordinator. Going: API,
worker, Temporal, PostgreSQL.
"""

import asyncio
import signal
from dataclasses import replace

from deploy.dev import desk
from deploy.dev.config import Key, StackConfig, find_key
from deploy.dev.console import Console, by_hand, overview, refused
from deploy.dev.environment import adopt
from deploy.dev.errors import PartFailed
from deploy.dev.folder import DataFolder
from deploy.dev.orphans import end_orphans
from deploy.dev.ports import Wanted, claim, free_port
from deploy.dev.postgres import Postgres
from deploy.dev.process import Child
from deploy.dev.programs import Api, Worker
from deploy.dev.supervisor import Part, Supervisor
from deploy.dev.temporal import Temporal

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
        """Until SIGINT, SIGTERM or SIGHUP. Raises StackError when it cannot come up; all is stopped then, too."""
        adopt(self.config.desk_settings())
        self.folder.create()
        self.folder.lock()
        work = asyncio.create_task(self._work())
        self._stop_on_signals(work)
        try:
            await work
        except asyncio.CancelledError:
            self._console.say("stopping (press Ctrl-C again to stop at once)")
        finally:
            await self._stop()

    def _stop_on_signals(self, work: asyncio.Task[None]) -> None:
        def first_or_second() -> None:
            if work.done() or work.cancelling():
                self._hasten.set()
            work.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, first_or_second)

    async def _work(self) -> None:
        await self._clear_the_ground()
        await self.supervisor.bring_up(self.postgres, self._temporal())
        await self._migrate()
        await self.supervisor.bring_up(*self._programs())
        async with asyncio.TaskGroup() as group:
            group.create_task(self.supervisor.keep_up())
            await self._open_desk()

    async def _clear_the_ground(self) -> None:
        """What a killed run left, before the ports are looked at: it may hold them."""
        count = await asyncio.to_thread(end_orphans, self.folder.path, self.folder.postgres)
        if count:
            self._console.progress("orphans", f"ended {count} processes that a killed run had left")
        self._claim_ports()
        self.folder.rotate_logs()
        self._record()

    def _claim_ports(self) -> None:
        asked = {
            "temporal": Wanted(self.ports.temporal, "Temporal", "--temporal-port"),
            "ui": Wanted(self.ports.ui, "the Temporal web UI", "--ui-port"),
            "metrics": Wanted(0, "", ""),
            "sdk_metrics": Wanted(0, "", ""),
        }
        if self.config.has("api") or self.ports.api == 0:
            asked["api"] = Wanted(self.ports.api, "the API", "--port")
        self.ports = replace(self.ports, **dict(zip(asked, claim(asked.values()), strict=True)))

    def _record(self) -> None:
        key_file = None if self._key else self.folder.make_api_key()
        pids = {part.name: part.child.pid for part in self.supervisor.parts if not part.child.ended()}
        self.running = self.config.record(self.ports, self.postgres.url, key_file, pids)
        self.folder.record(self.running)

    async def _migrate(self) -> None:
        # Alembic behind it costs half a second to import, which the other parts have used to come up.
        from storage import migrate
        from storage.database import DatabaseUnavailable

        try:
            await asyncio.to_thread(migrate.upgrade, self.postgres.url)
        except (DatabaseUnavailable, migrate.SchemaOutOfDate) as error:
            raise PartFailed("schema", str(error)) from error
        self._console.progress("schema", "up to date")

    async def _open_desk(self) -> None:
        refusal = await self._start_desk()
        if refusal is None:
            self._console.progress("coordinator", f"of desk {self.config.desk.desk}")
        self._console.say(overview(self.running, *self._told_key()))
        if refusal is not None:
            self._console.say(refused(refusal.why, self.folder.path))
            while not await desk.is_open(self.folder.path):
                await asyncio.sleep(DESK_POLL_SECONDS)
        self._console.say("ready")

    async def _start_desk(self) -> desk.Refusal | None:
        """Patient with stores that do not answer yet, as on a busy machine; a refusal of another kind is a person's."""
        told = ""
        while (refusal := await desk.start()) and refusal.passing:
            if refusal.why != told:
                self._console.progress("coordinator", f"not yet: {refusal.why}")
                told = refusal.why
            await asyncio.sleep(DESK_POLL_SECONDS)
        return refusal

    def _told_key(self) -> tuple[str, str]:
        key = self._key or Key(self.folder.api_key, str(self.folder.api_key), f"$(cat '{self.folder.api_key}')")
        return key.told, key.shell

    async def _stop(self) -> None:
        await self.supervisor.stop(self._hasten)
        # Whatever a part had started beside itself and left.
        await asyncio.to_thread(end_orphans, self.folder.path, self.folder.postgres)
        self.folder.forget()
        self.folder.unlock()

    # --- the parts --------------------------------------------------------------------------------------------------

    def _temporal(self) -> Temporal:
        child = self._child("temporal", Temporal.name)
        return Temporal(child, self.folder.temporal_db, self.ports.temporal, self.ports.ui)

    def _programs(self) -> list[Part]:
        worker = Worker(self._child("worker", Worker.name), self._new_metrics_port)
        api = Api(self._child("api", Api.name), self.ports.api)
        parts: dict[str, Part] = {"worker": worker, "api": api}
        for name in self.config.without:
            self._console.progress(name, by_hand(name, self.folder.path))
        return [part for name, part in parts.items() if self.config.has(name)]

    def _new_metrics_port(self) -> int:
        """For every start of the worker: nobody holds these while it is down, so another may have taken them."""
        self.ports = replace(self.ports, metrics=free_port(), sdk_metrics=free_port())
        self._record()
        return self.ports.metrics

    def _child(self, log: str, name: str) -> Child:
        return Child(name, self.folder.path, self.folder.log(log))
