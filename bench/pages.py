"""`/reports/decisions?limit=50` over HTTP against an authenticated request that does nothing, of the same API process.

The server is a process of its own. A sample is a slice of half a second: seconds of the processor an answer, of the API and
PostgreSQL together. The clients are plain sockets in the bench's process, and no part of it.
"""

import asyncio
import multiprocessing
import os
import sys
import time
from contextlib import ExitStack

import psutil
import uvicorn
from fastapi.responses import JSONResponse
from sqlalchemy import create_engine

from api.app import create_app
from api.door import Door
from api.parts import PartsOf
from api.reporting import PostgresReports
from bench.database import server
from bench.decisions import fill
from bench.load import ask_once
from bench.loading import listens
from bench.machine import DAEMONS, STARTS_WITHIN_SECONDS, cpu_seconds
from bench.subject import Pair, Sample, Steps, Subject
from cli.dev.ports import free_port
from tests.api.world import KEY, FakeGateway, make_settings
from tests.deploy.dev_stack import wait_until

SLICES = 12
SLICE_SECONDS = 0.5
NOTHING = "/reports/nothing"
PAGES = "/reports/decisions?limit=50"


def serve(url: str, port: int) -> None:
    """The API as `ais api` serves it, and beside its routes one that does nothing."""
    sys.stdout = open(os.devnull, "w")
    app = create_app(make_settings(), FakeGateway(), PostgresReports(url))

    @app.get(NOTHING)
    async def nothing(parts: PartsOf) -> JSONResponse:
        return JSONResponse({"desk": parts.desk_name})

    uvicorn.run(app, port=port, http=Door, ws="none", log_config=None, access_log=False)


async def answers_in_a_slice(port: int, path: str, clients: int) -> int:
    """How many there are."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(clients)]
    until = time.monotonic() + SLICE_SECONDS

    async def ask(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> int:
        count = 0
        while time.monotonic() < until:
            await ask_once(*connection, request)
            count += 1
        return count

    answers = sum(await asyncio.gather(*(ask(connection) for connection in connections)))
    for _, writer in connections:
        writer.close()
    return answers


def used(api: int | None, postmaster: int) -> float:
    """Seconds of the processor. PostgreSQL's processes for the API's connections stay as long as these do."""
    assert api
    return cpu_seconds(api, *(child.pid for child in psutil.Process(postmaster).children()))


def pairs(rows: int) -> Steps:
    """One for each page and number of clients."""
    with ExitStack() as stack:
        url = stack.enter_context(server())
        engine = create_engine(url)
        fill(engine, rows)
        engine.dispose()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(url, port := free_port()))
        process.start()
        stack.callback(process.join)
        stack.callback(process.kill)
        wait_until(lambda: listens(port), "the API listens", STARTS_WITHIN_SECONDS)
        runner = stack.enter_context(asyncio.Runner())

        (postmaster,) = DAEMONS

        def asks(path: str, clients: int) -> Sample:
            def sample() -> float:
                before = used(process.pid, postmaster)
                answers = runner.run(answers_in_a_slice(port, path, clients))
                return (used(process.pid, postmaster) - before) / answers

            return sample

        for clients in (1, 64):
            for path in (PAGES, f"{PAGES}&symbol=S1USDT", f"{PAGES}&agent_id=momentum"):
                yield Pair(f"{clients} clients, GET {path}", asks(path, clients), asks(NOTHING, clients), SLICES)


SUBJECT = Subject(
    "pages", "a page of decisions over HTTP, CPU time an answer", "a request that does nothing", pairs, 50_000, "rows"
)
