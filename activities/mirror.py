"""The mirror: the desk's state in Redis, for programs that only want to look. AIS reads nothing of its own from it.

The failure behind this file: a system that kept its kill switch in Redis traded on after Redis was lost. So here nothing waits
for Redis and nothing depends on it: a task of the worker asks the coordinator and writes down the answer, every second. What
nobody confirms any more expires by itself.

`seq` is the newest of a status's times, by Temporal's clock, in microseconds. So every worker computes the same number for the
same status, and a late write is recognised by its smaller number.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from domain.desk.states import State
from domain.desk.status import Status
from domain.health.troubles import KnownTroubles
from storage.redis_connection import RedisConnection

POLL_SECONDS = 1.0
# For one write, connecting included.
WRITE_SECONDS = 2.0
SOCKET_SECONDS = 1.0
LIVES_CYCLES = 3
LIVES_AT_LEAST_SECONDS = 5.0
# However long the cycle is, a worker writes every second. With a cycle of an hour the mirror of a desk without a worker said
# "running" for three hours, whoever killed it meanwhile.
LIVES_AT_MOST_SECONDS = 180.0
KILLED_LIVES_SECONDS = 3600.0
EVENTS_KEPT = 10_000

# KEYS: the state, the events. ARGV: seq, how long the state lives in ms, how many events are kept, the event as JSON, then
# names and values. An expired state is compared with the newest event, so that its return does not count as a change. A late
# write replaces neither state nor event. A newer kill is newer by its number, even if Temporal's clock has been set back since.
SCRIPT = """
local facts = {}
for i = 5, #ARGV, 2 do facts[ARGV[i]] = ARGV[i + 1] end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local event = newest[1] and newest[1][2] or {}
local known = redis.call('HGETALL', KEYS[1])
for _, written in ipairs({known, event}) do
    local seq, kill_number = 0, 0
    for i = 1, #written, 2 do
        if written[i] == 'seq' then seq = tonumber(written[i + 1]) or 0 end
        if written[i] == 'kill_number' then kill_number = tonumber(written[i + 1]) or 0 end
    end
    if seq > tonumber(ARGV[1]) and tonumber(facts['kill_number']) <= kill_number then return -1 end
end
if #known == 0 then known = event end
local changed = #known == 0
for i = 1, #known, 2 do
    local name = known[i]
    if name ~= 'seq' and name ~= 'at' and facts[name] ~= known[i + 1] then changed = true end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if changed then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 5))
    redis.call('PUBLISH', KEYS[2], ARGV[4])
end
return changed and 1 or 0
"""

log: Any = structlog.get_logger("mirror")


def facts_of(status: Status, now: datetime) -> dict[str, str]:
    """The fields that the mirror shows."""
    return {
        "state": status.state.value,
        "since": status.since.isoformat(),
        "actor": status.actor,
        "reason": status.reason,
        "kill_number": str(status.kill_number),
        "mode": status.mode.value,
        "seq": str(sequence_of(status)),
        "at": now.isoformat(),
    }


def sequence_of(status: Status) -> int:
    """A number that grows with every change of the desk and every cycle. Lua's doubles hold it exactly."""
    moments = (status.started_at, status.since, status.last_kill_at, status.last_cycle_at)
    return max(int(moment.timestamp() * 1_000_000) for moment in moments if moment)


def keys_of(desk: str) -> tuple[str, str]:
    """The keys of the state and of the events. The braces keep both on one node of a cluster."""
    return f"ais:{{{desk}}}:state", f"ais:{{{desk}}}:events"


class Mirror:
    """One desk's mirror. `ask` returns the coordinator's status, or None if nobody answers in time."""

    def __init__(self, url: str, desk: str, ask: Callable[[], Awaitable[Status | None]]) -> None:
        self._connection = RedisConnection(url, SOCKET_SECONDS)
        self._keys = keys_of(desk)
        self._ask = ask
        self._troubles = KnownTroubles()

    async def run(self) -> None:
        """Writes until it is cancelled. A bug in it ends no worker."""
        try:
            while True:
                await self._guarded_round()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await self.close()

    async def _guarded_round(self) -> None:
        try:
            if (status := await self._ask()) is not None:
                await self.write(status)
        except Exception as error:
            # Reconnect next time: after a failover the name leads to another server.
            await self.close()
            if self._troubles.begin(text=(why := trouble_of(error))):
                log.warning("Redis is not up to date; trying every second", why=why)
        else:
            if self._troubles.end():
                log.info("Redis is up to date again")

    async def write(self, status: Status) -> bool:
        """Writes a status and returns whether it changed anything. Raises what the client raises."""
        facts = facts_of(status, datetime.now(UTC))
        pairs = [part for pair in facts.items() for part in pair]
        lives = min(max(LIVES_CYCLES * status.cycle_seconds, LIVES_AT_LEAST_SECONDS), LIVES_AT_MOST_SECONDS)
        lives = KILLED_LIVES_SECONDS if status.state is State.KILLED else lives
        arguments = [facts["seq"], int(lives * 1000), EVENTS_KEPT, json.dumps(facts), *pairs]
        async with asyncio.timeout(WRITE_SECONDS):
            client = await self._connection.client()
            return bool(await client.eval(SCRIPT, 2, *self._keys, *arguments) == 1)

    async def close(self) -> None:
        """Closes the connection; the next write opens a new one."""
        await self._connection.close()


def trouble_of(error: Exception) -> str:
    """What is wrong, without any part of the URL: the error's class, and the code of an error reply such as OOM or READONLY."""
    first = str(error).split(" ")[0]
    code = f" {first}" if first.isalpha() and first.isupper() else ""
    return f"{type(error).__name__}{code}"
