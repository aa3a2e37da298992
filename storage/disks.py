"""Looks at the free space of the folders that AIS writes to."""

import asyncio
import os
from collections.abc import Sequence

from domain.health.disks import DiskSpace
from storage.own_thread import in_own_thread

# A network file system that is away does not answer at all.
LOOK_SECONDS = 1.0


def free_space(folders: Sequence[str]) -> list[DiskSpace]:
    """The space of each file system, once, by the first of its folders. Folders that this process cannot see are left out."""
    found: dict[int, DiskSpace] = {}
    for folder in folders:
        try:
            device, space = os.stat(folder).st_dev, os.statvfs(folder)
        except OSError:
            continue
        free, size = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
        found.setdefault(device, DiskSpace(folder=os.path.abspath(folder), free_bytes=free, size_bytes=size))
    return list(found.values())


class DiskWatch:
    """The folders that a process watches. Callers share one look at a time, however long it takes."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders
        self._looking: asyncio.Future[list[DiskSpace]] | None = None

    async def look(self) -> list[DiskSpace]:
        """The free space now. Raises TimeoutError if a file system does not answer, or no thread can be started to ask it."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(in_own_thread(lambda: free_space(self._folders)))
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await asyncio.shield(self._looking)
        except RuntimeError as error:
            # It must cost no reading of the venue, by which a kill is verified.
            raise TimeoutError(str(error)) from error
