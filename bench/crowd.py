"""1,000 connections that stall and up to 10,000 calls without a key: `python -m bench.crowd HOST PORT`, for bench/strangers.py.

A process of its own that imports nothing of ours, so that it is there at once. Whoever stalls is sent away after 5 s, and comes
again.
"""

import asyncio
import contextlib
import sys
import time

STALLED = 1_000
CALLS = 10_000
CALLS_PER_SECOND = 1_000
KNOCKERS = 20
HALF_A_HEAD = b"POST /control/kill-switch HTTP/1.1\r\nHost: x\r\nX-A: "
KNOCK = b"POST /control/kill-switch HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
READY = b"ready\n"


async def stall(host: str, port: int, connected: asyncio.Semaphore) -> None:
    """One connection with half a head, and the next once that is closed."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(HALF_A_HEAD)
            connected.release()
            await reader.read()
            writer.close()


async def knock(host: str, port: int) -> None:
    """A share of the calls at its share of the rate; whatever is answered but 401 ends the process."""
    reader, writer = await asyncio.open_connection(host, port)
    for _ in range(CALLS // KNOCKERS):
        began = time.monotonic()
        writer.write(KNOCK)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401 "), head
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        await asyncio.sleep(max(0.0, KNOCKERS / CALLS_PER_SECOND - (time.monotonic() - began)))
    writer.close()


async def crowd(host: str, port: int) -> None:
    """Says when all stall; then the calls, and the end."""
    connected = asyncio.Semaphore(0)
    stalling = [asyncio.create_task(stall(host, port, connected)) for _ in range(STALLED)]
    for _ in range(STALLED):
        await connected.acquire()
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    await asyncio.gather(*(knock(host, port) for _ in range(KNOCKERS)))
    for task in stalling:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(crowd(sys.argv[1], int(sys.argv[2])))
