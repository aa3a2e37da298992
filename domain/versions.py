"""What runs of an older schema do otherwise: every difference, named, in this one file.

A run goes on by the rules that it began with, since its history must replay; its next run takes the newest number. A number
goes once no run of it can be open any more, and its recorded histories go with it.
"""

SCHEMA_VERSION = 4


def takes_turns(version: int) -> bool:
    """Whether signals wait for a turn of bounded length, and no run ends in the workflow task that began it; before, each
    signal was applied by its handler."""
    return version >= 4


def shows_apart(version: int) -> bool:
    """Whether the search attribute is set in a workflow task of its own, after a look whether it is registered."""
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


def knows_clocks(version: int) -> bool:
    """Whether a worker's clock that is more than a cycle away from another one takes no new risk; before, nobody compared."""
    return version >= 4


def knows_growth(version: int) -> bool:
    """Whether readings after a kill are compared with what was held before it; before, a position that grew was not told."""
    return version >= 4


def cancels_together(version: int) -> bool:
    """Whether cancels that are due at the same time share an activity; before, each had one of its own."""
    return version >= 4


def flattens_on(version: int) -> bool:
    """Whether a closing order that filled in part is followed by the next at once; before, by the next reading."""
    return version >= 4


def leaves_dust(version: int) -> bool:
    """Whether a kill that flattens leaves a position below the lot step alone; before, it was tried again and again."""
    return version >= 4


def knows_written_rows(version: int) -> bool:
    """Whether a kill notes that its row was written; before, a row that no longer waited was taken for written."""
    return version >= 4


def restarts_wait_for_the_next_run(version: int) -> bool:
    """Whether a run that is about to end refuses restarts; before, one that waited could undo a kill that nobody heard of."""
    return version >= 4


def wakes_lanes(version: int) -> bool:
    """Whether cancels that wait are woken; before, each looked for itself in every workflow task."""
    return version >= 4
