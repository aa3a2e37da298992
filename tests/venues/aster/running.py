"""The fake server while it runs: inside this process on a free port, or as a process that can be killed."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from activities.venues.aster.caller import Caller
from activities.venues.aster.session import Session
from activities.venues.aster.transports import session_for
from activities.venues.aster.venue import AsterVenue
from cli.dev.ports import free_port
from tests.venues.aster.fake_server import ACCOUNT, FakeServer

ROOT = Path(__file__).parents[3]


class Heard:
    """A watch that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []
        self.kinds: set[str] = set()

    def venue_called(self, tool: str, seconds: float, outcome: str, symbol: str | None = None) -> None:
        assert seconds >= 0
        self.calls.append((tool, outcome != "ok"))

    def venue_data(self, kind: str, as_of: object) -> None:
        self.kinds.add(kind)


class _Uvicorn(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(fake: FakeServer, port: int = 0) -> AsyncIterator[str]:
    """The server's base URL while it serves."""
    config = uvicorn.Config(fake.app(), host="127.0.0.1", port=port, log_level="critical", timeout_graceful_shutdown=0)
    server = _Uvicorn(config)
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not running.done(), "it did not start"
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await running


# So long a time-out that no busy machine meets it.
PATIENT = 60.0


def make_venue(address: str, *, account_id: str = ACCOUNT, seconds: float = 10.0, watch: Any = None) -> AsterVenue:
    """The adapter, not connected yet."""
    return venue_of(session_for(address, seconds), account_id=account_id, seconds=seconds, watch=watch)


def venue_of(session: Session, *, account_id: str = ACCOUNT, seconds: float = 10.0, watch: Any = None) -> AsterVenue:
    """The adapter over a session."""
    heard = watch or Heard()
    return AsterVenue(Caller(session, account_id, seconds, heard), heard)


def plain_client() -> httpx.AsyncClient:
    """For plain HTTP alone: reading certificates would be dearer than the request."""
    return httpx.AsyncClient(trust_env=False, verify=False)


class OwnProcess:
    """The server as a process of its own, for what only a process can do: die."""

    def __init__(self, *flags: str) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self._flags = flags
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = ["-m", "tests.venues.aster.fake_server", "--port", str(self.port), *self._flags]
        self._process = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT)
        while not await self._answers():
            assert self._process.returncode is None, "it did not start"
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """With SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def control(self, what: str, **switches: Any) -> dict[str, Any]:
        async with plain_client() as client:
            answer = await client.post(f"{self.base}/control/{what}", json=switches)
            return dict(answer.json())

    async def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            async with plain_client() as client:
                return (await client.get(f"{self.base}/control/state")).status_code == 200
        return False
