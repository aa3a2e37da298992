"""Free space of what AIS writes to: a full disk takes every way to kill but by hand at the venue, so it warns before."""

from domain.values import Value

LOW_BYTES = 1_000_000_000
LOW_SHARE = 10
SHOWN = 3
WARNING = "little space"


class DiskSpace(Value):
    """One file system, by a folder on it that is watched. `free_bytes` is what processes other than root may still write."""

    folder: str
    free_bytes: int
    size_bytes: int

    @property
    def is_low(self) -> bool:
        """Less than 1 GB or less than 10 % of it."""
        return self.free_bytes < LOW_BYTES or self.free_bytes * 100 < self.size_bytes * LOW_SHARE

    @property
    def text(self) -> str:
        """The warning."""
        percent = 100 * self.free_bytes // max(self.size_bytes, 1)
        free, size = self.free_bytes / 1e9, self.size_bytes / 1e9
        return f"{WARNING} in {self.folder}: {free:.2f} GB of {size:.0f} GB free ({percent} %); a full disk can record no kill"


def low(disks: list[DiskSpace]) -> list[DiskSpace]:
    """Those that are low, the fewest bytes first."""
    return sorted((disk for disk in disks if disk.is_low), key=lambda disk: disk.free_bytes)[:SHOWN]
