"""Checks whether a local server answers, using only the standard library."""

import http.client

from cli.dev.ports import HOST


def answers(port: int, path: str) -> bool:
    """Blocks for up to a few seconds. True for any response except a server error; a redirect counts."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < http.client.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
