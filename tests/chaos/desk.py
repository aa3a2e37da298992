"""One desk of one round: a fresh database, two APIs, two workers, and a proxy between any two parts."""

import asyncio
import contextlib
import re
import signal
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import make_url
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.service import RPCError

from cli.dev.ports import free_port
from tests.chaos.forking import Process, Zygote
from tests.chaos.proxy import Connect, Proxy, to_port, to_socket
from tests.chaos.schedule import (
    APIS,
    COLLEAGUE,
    EARLIER,
    FORMER,
    PROCESSES,
    SYMBOLS,
    THIS,
    VERSIONS,
    VIEWER,
    WORKERS,
    Round,
    links,
)  # fmt: skip
from tests.chaos.servers import ROLE, Postgres, Temporal

KEY = "chaos-0123456789-abcdefghijklmnopqrstuvwxyz"
ACCOUNT = "chaos-account"
# All workers of a namespace share one: any of them takes the workflow tasks of any desk.
DEPLOYMENT = "ais"
READY_SECONDS = 60.0
# In one paper round out of so many, orders are large.
LARGE_EVERY = 4
# And in a scene larger still: a second one does not fit.
LARGEST_IN = "a_position_is_full"


class Desk:
    """Everything of one round that is not a store."""

    def __init__(
        self,
        plan: Round,
        zygote: Zygote,
        temporal: Temporal,
        postgres: Postgres,
        folder: Path,
        name: str,
        earlier: Zygote | None = None,
    ) -> None:
        self.plan = plan
        self.name = name
        self.zygote, self.temporal, self.postgres = zygote, temporal, postgres
        self.zygotes = {THIS: zygote, **({EARLIER: earlier} if earlier else {})}
        self.releases = {name: EARLIER if name in plan.earlier else THIS for name in PROCESSES}
        self.folder = folder
        self.database = ""
        self.processes: dict[str, Process] = {}
        self.proxies: dict[str, Proxy] = {}
        self.venue_port = free_port() if plan.live else 0
        self.api_ports = {api: free_port() for api in APIS}
        # The API closes a connection that is idle for 5 s: a request that is being sent just then is lost, by nobody's fault.
        kept = httpx.Limits(max_keepalive_connections=8, keepalive_expiry=2.0)
        self.http = httpx.AsyncClient(timeout=8.0, trust_env=False, limits=kept)
        self.client: Client | None = None
        # Of its workflow tasks, where no other desk's workers shall take them.
        self.queue = ""
        # Of a viewer, and one that was revoked, and when.
        self.keys: dict[str, str] = {}
        self.revoked_at = 0.0
        # Prices as they were when the round began; a limit order is placed beside them.
        self.marks: dict[str, float] = {}
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    # --- its life ------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Until the coordinator has said what it is, through both APIs."""
        self.client = await self.temporal.client()
        self.database = await asyncio.to_thread(self.postgres.new_database)
        for link in links(self.plan.live):
            self.proxies[link] = Proxy(self._other_end(link.split(">")[1]))
            await self.proxies[link].start()
        if self.plan.live:
            await self._open_venue()
        # Before the APIs start, whose first reading of the keys then has both.
        roles = {VIEWER: "viewer", FORMER: "viewer", COLLEAGUE: "operator"}
        await asyncio.gather(*(self._make_key(name, role, number) for number, (name, role) in enumerate(roles.items())))
        await asyncio.gather(*(self.start(name) for name in PROCESSES))
        if self.plan.upgrade == VERSIONS:
            await self.make_current(EARLIER)
        code, said = await self.ais("start")
        assert code == 0, said
        await self._until_ready()
        code, said = await self.ais("keys", "revoke", FORMER, number=3)
        assert code == 0, said
        self.revoked_at = time.time()

    async def _make_key(self, name: str, role: str, number: int) -> None:
        code, said = await self.ais("keys", "create", name, "--role", role, number=number)
        assert code == 0, said
        self.keys[name] = next(word for word in said.split() if re.fullmatch(r"ais_\w+_\w+", word))

    async def close(self) -> None:
        """Nothing of it goes on."""
        with contextlib.suppress(Exception):
            assert self.client
            await self.client.get_workflow_handle(self.workflow_id).terminate("the round is over")
        if self.plan.upgrade == VERSIONS:
            await self.make_current(None)
        await asyncio.gather(*(process.end() for process in self.processes.values()))
        await asyncio.gather(*(proxy.close() for proxy in self.proxies.values()))
        await self.http.aclose()
        if self.database:
            await asyncio.to_thread(self.postgres.drop, self.database)

    @property
    def workflow_id(self) -> str:
        """As people name it to Temporal."""
        return f"coordinator-{self.name}"

    # --- versions of its workers ---------------------------------------------------------------------------------------

    async def make_current(self, release: str | None) -> None:
        """What `temporal worker deployment set-current-version` does, once a worker of it polls; None: of no version."""
        assert self.client
        request = SetWorkerDeploymentCurrentVersionRequest(
            namespace="default", deployment_name=DEPLOYMENT, build_id=self._build(release) if release else "",
            ignore_missing_task_queues=True,
        )  # fmt: skip
        service = self.client.workflow_service

        async def told() -> bool:
            with contextlib.suppress(RPCError):
                await service.set_worker_deployment_current_version(request, retry=False, timeout=timedelta(seconds=5))
                return True
            return False

        await _until(told, f"workers of {release or 'no version'}")

    def _build(self, release: str) -> str:
        return f"{self.name}-{'new' if release == THIS else 'old'}"

    # --- its processes -------------------------------------------------------------------------------------------------

    async def start(self, name: str) -> None:
        """One of the processes, anew."""
        arguments = ("worker",) if name in WORKERS else ("ais", "api", "--port", str(self.api_ports[name]))
        log = self.folder / f"{name}.log"
        zygote = self.zygotes[self.releases[name]]
        self.processes[name] = await zygote.start(*arguments, env=self.environment(name), log=log)

    async def ais(self, *argv: str, seconds: float = 15.0, number: int = 0) -> tuple[int | None, str]:
        """One command at a terminal of its own, past every proxy."""
        log = self.folder / f"ais-{argv[0]}-{number}.log"
        return await self.zygote.ais(*argv, env=self.environment("person"), log=log, seconds=seconds)

    def environment(self, name: str) -> dict[str, str]:
        """The settings of one of its processes; a `person` goes past every proxy."""
        live = {
            "AIS_MODE": "live",
            "AIS_ENABLE_LIVE_TRADING": "true",
            "AIS_ASTER_MCP": f"http://127.0.0.1:{self._port(name, 'venue')}/mcp",
            "AIS_ASTER_ACCOUNT_ID": ACCOUNT,
            "AIS_BOOKS_SECONDS": "10",
            "AIS_ORDER_FRACTION": "0.01",
        }
        # Two of these fit into a position.
        large = {"AIS_ORDER_FRACTION": "0.12"} if self.plan.seed % LARGE_EVERY == LARGE_EVERY - 1 else {}
        if self.plan.scene and self.plan.scene.kind == LARGEST_IN:
            large = {"AIS_ORDER_FRACTION": "0.16"}
        versions = {
            "AIS_WORKER_VERSIONING": "pinned",
            "AIS_WORKER_DEPLOYMENT": DEPLOYMENT,
            "AIS_WORKER_BUILD_ID": self._build(self.releases.get(name, THIS)),
        }
        return {
            "AIS_DESK": self.name,
            "AIS_SYMBOLS": ",".join(SYMBOLS),
            "AIS_CYCLE_SECONDS": str(self.plan.cycle_seconds),
            "AIS_API_KEY": KEY,
            "AIS_AGENTS": "none",
            "AIS_SEED": str(self.plan.seed),
            "AIS_METRICS_PORT": "0",
            "AIS_SDK_METRICS_PORT": "0",
            "AIS_GRACEFUL_SHUTDOWN_SECONDS": "2",
            "AIS_DATABASE_URL": self._database_url(name),
            "CHAOS_SCHEMA": str(self.plan.schema),
            "CHAOS_CLOCK": str(self.clock_of(name)),
            "CHAOS_QUEUE": self.queue,
            "TEMPORAL_ADDRESS": f"127.0.0.1:{self._port(name, 'temporal')}",
            "TEMPORAL_NAMESPACE": "default",
            **(live if self.plan.live else large),
            **(versions if self.plan.upgrade == VERSIONS else {}),
        }

    def clock_of(self, name: str) -> Path:
        """The file that says by how many seconds the clock of a process is ahead."""
        return self.folder / f"{name}.clock"

    def _database_url(self, name: str) -> str:
        direct = make_url(self.postgres.url_of(self.database, ROLE))
        if (proxy := self.proxies.get(f"{name}>database")) is not None:
            direct = make_url(f"postgresql+psycopg://{ROLE}@127.0.0.1:{proxy.port}/{self.database}")
        return direct.render_as_string(hide_password=False)

    def _port(self, name: str, part: str) -> int:
        proxy = self.proxies.get(f"{name}>{part}")
        there = {"temporal": self.temporal.port, "venue": self.venue_port}
        return proxy.port if proxy else there[part]

    def _other_end(self, part: str) -> Connect:
        if part == "database":
            return to_socket(self.postgres.socket)
        ports = {"temporal": self.temporal.port, "venue": self.venue_port, **self.api_ports}
        return to_port(ports[part])

    # --- its ways in ---------------------------------------------------------------------------------------------------

    def url(self, api: int) -> str:
        """Of one of the APIs, through its proxy."""
        return f"http://127.0.0.1:{self.proxies[f'client>{APIS[api]}'].port}"

    async def status(self) -> dict[str, Any] | None:
        """What the coordinator says; None where neither API answers."""
        answer = await self.ask("/control/coordinator")
        return dict(answer.json()) if answer and answer.status_code == 200 else None

    async def ask(self, path: str) -> httpx.Response | None:
        """What either API answers to a GET, past the proxies: the second one where the first fails, None where both do."""
        answer = None
        for port in self.api_ports.values():
            with contextlib.suppress(httpx.HTTPError):
                answer = await self.http.get(
                    f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {KEY}"}
                )
                if answer.status_code < 500:
                    break
        return answer

    async def venue(self, what: str, **switches: Any) -> dict[str, Any]:
        """A switch of the venue's, or its state."""
        base = f"http://127.0.0.1:{self.venue_port}/control/{what}"
        answer = await (self.http.get(base) if what == "state" else self.http.post(base, json=switches))
        return dict(answer.json())

    async def _open_venue(self) -> None:
        arguments = ("venue", "--port", str(self.venue_port), "--account", ACCOUNT)
        self.processes["venue"] = await self.zygote.start(*arguments, env={}, log=self.folder / "venue.log")
        await _until(self._venue_is_up, "the venue")

    async def _venue_is_up(self) -> bool:
        with contextlib.suppress(httpx.HTTPError, ValueError):
            await self.venue("state")
            return True
        return False

    async def _until_ready(self) -> None:
        async def ready() -> bool:
            status = await self.status()
            if not status or not status["observation"]:
                return False
            self.marks = {symbol: float(mark) for symbol, mark in status["observation"]["marks"].items()}
            return all([await self._answers(port) for port in self.api_ports.values()])

        await _until(ready, f"desk {self.name}")

    async def _answers(self, port: int) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await self.http.get(f"http://127.0.0.1:{port}/health/live")).status_code == 200
        return False

    async def revive(self) -> None:
        """Everything that a fault has left dead, stopped or cut off works again."""
        self.temporal.send(signal.SIGCONT)
        for proxy in self.proxies.values():
            if proxy.mode != "pass":
                await proxy.change("pass")
        for name in PROCESSES:
            self.processes[name].send(signal.SIGCONT)
            if self.processes[name].ended.done():
                await self.start(name)


async def _until(condition: Any, what: str, seconds: float = READY_SECONDS) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, f"not in {seconds} s: {what}"
        await asyncio.sleep(0.1)
