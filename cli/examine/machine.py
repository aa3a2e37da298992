"""Checks of `ais doctor`: the API and the disks of this machine."""

import asyncio
import urllib.error
import urllib.request

import settings
from cli.examine.findings import Examination, Finding, ok, unknown, warn
from storage.disks import DiskWatch

API_SECONDS = 2.0


async def api(seen: Examination) -> Finding:
    """Whether the API answers on this machine."""
    found = seen.loaded.get(settings.ApiSettings)
    port = found.api_port if found else settings.ApiSettings.model_fields["api_port"].default
    url = f"http://127.0.0.1:{port}/health/live"
    try:
        answer = await asyncio.wait_for(asyncio.to_thread(_get, url), API_SECONDS + 1)
    except (OSError, TimeoutError, ValueError) as error:
        told = str(getattr(error, "reason", error)).strip() or type(error).__name__
        why = told.splitlines()[0][:200]
        return warn("api", f"{url} does not answer: {why}", "if it should run here: ais api")
    if answer != 200:
        return warn("api", f"{url} answers {answer}", "something else may listen on this port: check AIS_API_PORT")
    return ok("api", f"{url} answers")


def _get(url: str) -> int:
    """The HTTP status of the answer, also of an error."""
    # Bypass any proxy of the environment: the address is on this machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=API_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


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
