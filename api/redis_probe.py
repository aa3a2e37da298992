"""Whether Redis takes writes now, for `/health`. A PING alone would call one fine that is full, or a replica."""

from storage.redis_connection import RedisConnection

SOCKET_SECONDS = 1.5
LIVES_MS = 10_000


class RedisProbe:
    """Of one API process; None for the URL where no Redis is configured."""

    def __init__(self, url: str | None, desk: str) -> None:
        self._connection = RedisConnection(url, SOCKET_SECONDS) if url else None
        self._key = f"ais:{{{desk}}}:probe"

    async def connected(self) -> bool:
        """False where none is configured, too."""
        if self._connection is None:
            return False
        try:
            client = await self._connection.client()
            return bool(await client.set(self._key, "1", px=LIVES_MS))
        except Exception:  # whatever it is: Redis is not connected, and nothing else depends on it
            await self.close()
            return False

    async def close(self) -> None:
        """Ends the connection; the next probe makes a new one."""
        if self._connection is not None:
            await self._connection.close()
