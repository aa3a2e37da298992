"""Every difference between older runs and new ones, each with a name, in this one file.

The schema version is a version of the coordinator's rules, not of the database (that one is the Alembic revision). A run
keeps the version that it began with (`Carried.schema_version`), since its history must replay; the next run takes the
newest. Raise `SCHEMA_VERSION` when the workflow would schedule other commands than before, or in another order, for the
same history; `tests/workflows/test_replay.py` then fails. docs/operations.md, "Upgrades", has the steps. A changed guard,
agent or API needs no new version.

Once no run of an old version can be open any more, remove that version together with its recorded histories.
"""

SCHEMA_VERSION = 6


def decides_ahead(version: int) -> bool:
    """Whether the reading of a cycle may bring its choice with it. Before, each decision was an activity of its own."""
    return version >= 6


class NewerRules(Exception):
    """A newer release began this run, under rules that this release does not know."""


def check_known(version: int) -> None:
    """Refuses a run under unknown rules: carried on here, it could never be replayed by the release that began it. Raises
    NewerRules."""
    if version > SCHEMA_VERSION:
        raise NewerRules(
            f"this run has the rules of version {version}, and this worker knows them up to version {SCHEMA_VERSION}:"
            " start a worker of the release that began it, and stop this one"
        )


def takes_turns(version: int) -> bool:
    """Whether signals wait for a turn of bounded length, and no run ends in the workflow task that began it. Before, each
    handler applied its signal at once."""
    return version >= 4


def ends_early(version: int) -> bool:
    """Whether a run ends at 2,048 events, although the server would allow more. Before, it ended when the server suggested
    it.

    Changing the number needs a version of its own: runs longer than the new number would replay differently.
    """
    return version >= 5


def remembers_commands(version: int) -> bool:
    """Whether a restart keeps the dedupe window. Before, it emptied it, and a command that its sender repeated after the
    restart was carried out again."""
    return version >= 5


def settles_once(version: int) -> bool:
    """Whether a proposal that was replaced while a cycle was deciding keeps that outcome. Before, the cycle could also
    refuse it after its sender had been told that it was applied."""
    return version >= 5


def shows_apart(version: int) -> bool:
    """Whether a separate workflow task sets the search attribute, after a check that it is registered."""
    return version >= 4


def knows_generations(version: int) -> bool:
    """Whether kills and restarts are compared by id, and the latch by the returned row. Before, both by number."""
    return version >= 4


def reads_latch_first(version: int) -> bool:
    """Whether a run, even after a reset, reads the latch before it reports its state. Before, it read it in its next cycle."""
    return version >= 4


def activities_by_desk(version: int) -> bool:
    """Whether each desk's activities have their own task queue. Before, every desk and mode shared one."""
    return version >= 4


def knows_clocks(version: int) -> bool:
    """Whether the desk takes no new risk if the worker's clock is more than a cycle off. Before, clocks were not compared."""
    return version >= 4


def knows_growth(version: int) -> bool:
    """Whether readings after a kill are compared with the positions before it. Before, a grown position went unnoticed."""
    return version >= 4


def cancels_together(version: int) -> bool:
    """Whether cancels that are due at the same time share an activity. Before, each had its own."""
    return version >= 4


def flattens_on(version: int) -> bool:
    """Whether the next closing order follows a partial fill at once. Before, it waited for the next reading."""
    return version >= 4


def leaves_dust(version: int) -> bool:
    """Whether a kill that flattens leaves a position below the lot step alone. Before, it tried again and again."""
    return version >= 4


def knows_written_rows(version: int) -> bool:
    """Whether a kill notes that its row was written. Before, a row that was no longer waiting counted as written."""
    return version >= 4


def restarts_wait_for_the_next_run(version: int) -> bool:
    """Whether a run that is about to end refuses restarts. Before, a waiting restart could undo a kill not yet handled."""
    return version >= 4


def wakes_lanes(version: int) -> bool:
    """Whether waiting cancels are woken. Before, each of them checked in every workflow task."""
    return version >= 4


def verifies_without_cancels(version: int) -> bool:
    """Whether a kill with no cancels of its own, because earlier ones serve it, is verified. Before, it never was."""
    return version >= 4
