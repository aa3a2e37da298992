"""Looks at the free space of the folders that AIS writes to."""

import asyncio
import os
from collections.abc import Sequence

from domain.health.disks import DiskSpace

# A network file system that is gone answers nothing, for as long as it is gone.
LOOK_SECONDS = 1.0


def free_space(folders: Sequence[str]) -> list[DiskSpace]:
    """Each file system once, by the first of its folders; a folder that this process cannot see is left out."""
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
    """The folders of one process. One look at a time, however many ask and however long it takes."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders
        self._looking: asyncio.Future[list[DiskSpace]] | None = None

    async def look(self) -> list[DiskSpace]:
        """What there is now; raises TimeoutError where a file system does not answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(asyncio.to_thread(free_space, self._folders))
        async with asyncio.timeout(LOOK_SECONDS):
            return await asyncio.shield(self._looking)
