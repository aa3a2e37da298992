"""Free disk space. On a full disk the only working kill is by hand at the venue, so the desk warns early."""

from domain.values import Value

LOW_BYTES = 1_000_000_000
LOW_SHARE = 10
SHOWN = 3


class DiskSpace(Value):
    """One file system, named by a watched folder on it. `free_bytes` is what processes other than root may still write."""

    folder: str
    free_bytes: int
    size_bytes: int

    @property
    def is_low(self) -> bool:
        """Whether less than 1 GB or less than 10 % is left."""
        return self.free_bytes < LOW_BYTES or self.free_bytes * 100 < self.size_bytes * LOW_SHARE

    @property
    def text(self) -> str:
        """The warning."""
        percent = 100 * self.free_bytes // max(self.size_bytes, 1)
        free, size = self.free_bytes / 1e9, self.size_bytes / 1e9
        return f"little space in {self.folder}: {free:.2f} GB of {size:.0f} GB free ({percent} %); a full disk can record no kill"


def low(disks: list[DiskSpace]) -> list[DiskSpace]:
    """The disks that are low, the fullest first."""
    return sorted((disk for disk in disks if disk.is_low), key=lambda disk: disk.free_bytes)[:SHOWN]
