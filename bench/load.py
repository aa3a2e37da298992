"""Load on an API, in a process of its own, so that it does not slow down the one that measures: `python -m bench.load …`.

Plain sockets, because an HTTP client in Python costs more than the server that it is meant to load.
"""

import asyncio
import sys
import time

STATUS_CLIENTS = 64
UNAUTHENTICATED_PER_SECOND = 1_000
KNOCKERS = 20


async def ask_for_ever(host: str, port: int, request: bytes, every: float) -> None:
    """One connection: a request, its answer, and the next no sooner than `every` seconds after the last began."""
    reader, writer = await asyncio.open_connection(host, port)
    while True:
        began = time.monotonic()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        await asyncio.sleep(max(0.0, every - (time.monotonic() - began)))


async def main(host: str, port: int, key: str) -> None:
    """64 status clients and 1,000 unauthenticated requests a second, until the process is ended."""
    status = f"GET /control/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    knock = b"POST /control/kill-switch HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    asking = [ask_for_ever(host, port, status, 0.0) for _ in range(STATUS_CLIENTS)]
    knocking = [ask_for_ever(host, port, knock, KNOCKERS / UNAUTHENTICATED_PER_SECOND) for _ in range(KNOCKERS)]
    await asyncio.gather(*asking, *knocking)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
