"""From a kill to all of 100 cancels confirmed, against a bare MCP client that does the same.

50 symbols, both markets, a server that takes 20 ms for each call. The floor sends each cancel and reads it back over one open
session, as many at once as AIS does.
"""

import asyncio
import time
from contextlib import ExitStack
from datetime import UTC, datetime

from mcp import Client

from bench.desks import a_live_desk
from bench.subject import Pair, Steps, Subject
from tests.e2e.live import Live
from tests.e2e.test_real_venue import ACCOUNT
from workflows.lanes import MAX_CANCELS_AT_ONCE

ROUNDS = 9
TOOLS = {"cancel_all_orders": "get_open_orders", "cancel_spot_all_orders": "get_spot_open_orders"}
CALL_SECONDS = 0.02
CYCLE_SECONDS = 60
ALLOWED = 1.3


async def bare(client: Client, symbols: list[str]) -> float:
    """Seconds of every cancel, each read back, by the SDK alone."""
    room = asyncio.Semaphore(MAX_CANCELS_AT_ONCE)

    async def cancel(tool: str, reads_back: str, symbol: str) -> None:
        arguments = {"account_id": ACCOUNT, "symbol": symbol}
        async with room:
            for name in (tool, reads_back):
                assert not (await client.session.call_tool(name, arguments)).is_error

    began = time.perf_counter()
    await asyncio.gather(*(cancel(tool, reads, symbol) for symbol in symbols for tool, reads in TOOLS.items()))
    return time.perf_counter() - began


def killed(live: Live) -> float:
    """Seconds from the request of a kill to the moment at which its last cancel was confirmed."""
    began = datetime.now(UTC)
    answer = live.kill("bench")
    assert answer.status_code in (200, 202), answer.text
    # Who asks all the time slows down what is measured.
    time.sleep(1.0)
    while not (kill := live.coordinator()["kill"])["verified_at"]:
        time.sleep(0.5)
    assert kill["cancels"] == kill["confirmed"]
    return (datetime.fromisoformat(kill["quiet_at"]) - began).total_seconds()


def pairs(count: int) -> Steps:
    """One."""
    symbols = [f"S{number:02}USDT" for number in range(count)]
    with ExitStack() as stack:
        live, venue = stack.enter_context(a_live_desk(symbols, CYCLE_SECONDS))
        venue.control("faults", slow={"*": CALL_SECONDS})
        runner = stack.enter_context(asyncio.Runner())
        client = Client(f"{venue.base}/mcp", read_timeout_seconds=30)
        runner.run(client.__aenter__())
        stack.callback(lambda: runner.run(client.__aexit__(None, None, None)))
        runner.run(client.session.list_tools())
        yield Pair(
            f"from a kill to {2 * count} cancels confirmed",
            lambda: killed(live),
            lambda: runner.run(bare(client, symbols)),
            ROUNDS,
            allowed=ALLOWED,
        )


SUBJECT = Subject(
    "kill", "cancels of a kill at an exchange", "a bare MCP client that cancels and reads back", pairs, 50, "symbols"
)
