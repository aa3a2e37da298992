"""Asking a local server whether it answers, with nothing but the standard library."""

import asyncio
import http.client

from deploy.dev.ports import HOST


async def answers(port: int, path: str) -> bool:
    """Any answer but a server error. A redirect is one."""
    return await asyncio.to_thread(_status, port, path) < http.client.INTERNAL_SERVER_ERROR


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 599
    finally:
        connection.close()
