"""`make bench`, third part: from a kill to all of 100 cancels confirmed, against a bare MCP client that does the same.

50 symbols, both markets, a server that takes 20 ms for each call. The peer sends each cancel and reads it back over one open
session, as many at once as AIS does; both take turns in the same run, since machines are slow at different times.
"""

import asyncio
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcp import Client

from tests.e2e.live import Live
from tests.e2e.test_real_venue import ACCOUNT, Venue
from workflows.lanes import MAX_CANCELS_AT_ONCE

ROUNDS = int(os.environ.get("AIS_BENCH_KILLS", "7"))
SYMBOLS = [f"S{number:02}USDT" for number in range(50)]
TOOLS = {"cancel_all_orders": "get_open_orders", "cancel_spot_all_orders": "get_spot_open_orders"}
CALL_SECONDS = 0.02
ALLOWED = 1.3


async def bare(client: Client) -> float:
    """Seconds of 100 cancels, each read back, by the SDK alone."""
    room = asyncio.Semaphore(MAX_CANCELS_AT_ONCE)

    async def cancel(tool: str, reads_back: str, symbol: str) -> None:
        arguments = {"account_id": ACCOUNT, "symbol": symbol}
        async with room:
            for name in (tool, reads_back):
                assert not (await client.session.call_tool(name, arguments)).is_error

    began = time.perf_counter()
    await asyncio.gather(*(cancel(tool, reads, symbol) for symbol in SYMBOLS for tool, reads in TOOLS.items()))
    return time.perf_counter() - began


async def killed(live: Live) -> float:
    """Seconds from the request of a kill to the moment at which its last cancel was confirmed."""
    began = datetime.now(UTC)
    answer = await asyncio.to_thread(live.kill, "bench")
    assert answer.status_code in (200, 202), answer.text
    # Who asks all the time slows down what is measured.
    await asyncio.sleep(1.0)
    while not (kill := await asyncio.to_thread(_kill, live))["verified_at"]:
        await asyncio.sleep(0.5)
    assert kill["cancels"] == kill["confirmed"]
    return (datetime.fromisoformat(kill["quiet_at"]) - began).total_seconds()


def _kill(live: Live) -> dict[str, Any]:
    found: dict[str, Any] = live.coordinator()["kill"]
    return found


async def measure(live: Live, venue: Venue) -> None:
    """Takes turns, and tells the medians."""
    ours, theirs = [], []
    venue.control("faults", slow={"*": CALL_SECONDS})
    async with Client(f"{venue.base}/mcp", read_timeout_seconds=30) as client:
        await client.session.list_tools()
        await bare(client)
        await killed(live)
        for _ in range(ROUNDS):
            theirs.append(await bare(client))
            ours.append(await killed(live))
            print(f"  bare {theirs[-1]:.2f} s   AIS {ours[-1]:.2f} s   {ours[-1] / theirs[-1]:.2f} x", flush=True)
    pairs = statistics.median(mine / bare for mine, bare in zip(ours, theirs, strict=True))
    print(f"floor: a bare client, 100 cancels read back  p50 {statistics.median(theirs):.2f} s")
    print(f"kill -> 100 cancels confirmed                p50 {statistics.median(ours):.2f} s   {pairs:.2f} x floor")
    print(f"allowed are {ALLOWED} x")


def main() -> None:
    """A live desk at a fake server, both of their own."""
    with tempfile.TemporaryDirectory() as folder:
        venue, live = Venue(), Live(Path(folder).resolve() / "desk")
        venue.control("mark", **dict.fromkeys(SYMBOLS, "100"))
        live.stack.settings = {"AIS_MODE": "live", "AIS_ENABLE_LIVE_TRADING": "true", **venue.settings}
        try:
            live.start("--symbols", ",".join(SYMBOLS), "--cycle-seconds", "60")
            asyncio.run(measure(live, venue))
        finally:
            live.clean_up()
            venue.stop()


if __name__ == "__main__":
    main()
