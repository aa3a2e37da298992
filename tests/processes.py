"""Looks at processes that may end while they are looked at."""

from contextlib import suppress

import psutil


def is_alive(pid: int) -> bool:
    """Whether it runs. A zombie has ended."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def children_of_ours(word: str) -> list[int]:
    """The ids of this process's children that run and have this word in their command line."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if word in " ".join(child.cmdline()):
                found.append(child.pid)
    return found
