"""Checks of `ais doctor`: the API and the disks of this machine."""

import asyncio
import http.client

import settings
from cli.examine.findings import Examination, Finding, ok, unknown, warn
from storage.disks import DiskWatch

API_SECONDS = 2.0
LIVE = "/health/live"
SOMETHING_ELSE = "something else may listen on this port: check AIS_API_PORT"


async def api(seen: Examination) -> Finding:
    """Whether the API answers on this machine."""
    found = seen.loaded.get(settings.ApiSettings)
    port = found.api_port if found else settings.ApiSettings.model_fields["api_port"].default
    url = f"http://127.0.0.1:{port}{LIVE}"
    try:
        answer = await asyncio.wait_for(asyncio.to_thread(_get, port), API_SECONDS + 1)
    except http.client.HTTPException as error:
        return warn("api", f"{url} does not answer by HTTP: {_first_line(error)}", SOMETHING_ELSE)
    except OSError as error:
        return warn("api", f"{url} does not answer: {_first_line(error)}", "if it should run here: ais api")
    if answer != 200:
        return warn("api", f"{url} answers {answer}", SOMETHING_ELSE)
    return ok("api", f"{url} answers")


def _get(port: int) -> int:
    """The HTTP status of the answer, also of an error. Directly: no proxy of the environment leads to this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=API_SECONDS)
    try:
        connection.request("GET", LIVE)
        return connection.getresponse().status
    finally:
        connection.close()


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


async def disks(seen: Examination) -> Finding:
    """Whether the watched folders have space left."""
    found = seen.loaded.get(settings.DiskSettings)
    if found is None:
        return unknown("disk space", "AIS_DISK_FOLDERS cannot be read")
    try:
        watched = await DiskWatch(found.disk_folders).look()
    except TimeoutError:
        return warn("disk space", "a file system does not answer", "check the mounts under AIS_DISK_FOLDERS")
    if not watched:
        return warn(
            "disk space",
            "none of the folders in AIS_DISK_FOLDERS can be seen here",
            "name folders that exist on this machine",
        )
    little = [disk.text for disk in watched if disk.is_low]
    if little:
        return warn("disk space", "; ".join(little), "make room (docs/operations.md, Disk space)")
    return ok("disk space", ", ".join(f"{disk.folder}: {disk.free_bytes / 1e9:.1f} GB free" for disk in watched))
