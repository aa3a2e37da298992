"""Whether Redis accepts writes now, for `/health`. A PING also succeeds on a full Redis, or on a replica."""

from storage.redis_connection import RedisConnection

SOCKET_SECONDS = 1.5
LIVES_MS = 10_000


class RedisProbe:
    """One API process's probe. `url` is None if no Redis is configured."""

    def __init__(self, url: str | None, desk: str) -> None:
        self._connection = RedisConnection(url, SOCKET_SECONDS) if url else None
        self._key = f"ais:{{{desk}}}:probe"

    async def connected(self) -> bool:
        """Whether a write succeeded; False also if no Redis is configured."""
        if self._connection is None:
            return False
        try:
            client = await self._connection.client()
            return bool(await client.set(self._key, "1", px=LIVES_MS))
        except Exception:  # whatever it is: Redis is not connected, and nothing else depends on it
            await self.close()
            return False

    async def close(self) -> None:
        """Closes the connection; the next probe opens a new one."""
        if self._connection is not None:
            await self._connection.close()
