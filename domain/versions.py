"""What runs of an older schema do otherwise: every difference, named, in this one file.

A run goes on by the rules that it began with, since its history must replay; its next run takes the newest number. A number
goes once no run of it can be open any more, and its recorded histories go with it.
"""

SCHEMA_VERSION = 4


def tells_cancellation(version: int) -> bool:
    """Whether a cancellation carries its command's id, actor and reason, and no run ends in the task that starts it."""
    return version >= 4


def knows_generations(version: int) -> bool:
    """Whether kills and restarts are told apart by their ids, and the latch is what the row answered; before, by numbers."""
    return version >= 4


def reads_latch_first(version: int) -> bool:
    """Whether a run, and one that was reset, reads the latch before it says in which state it is; before, in its next cycle."""
    return version >= 4


def activities_by_desk(version: int) -> bool:
    """Whether a desk's activities have a task queue of their own; before, every desk and mode shared one."""
    return version >= 4
