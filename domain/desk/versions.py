"""Every difference between older runs and new ones, each with a name, in this one file.

The schema version is a version of the coordinator's rules, not of the database (that one is the Alembic revision). A run
keeps the version that it began with (`Carried.schema_version`), since its history must replay; the next run takes the
newest. Raise `SCHEMA_VERSION` when the workflow would schedule other commands than before, or in another order, for the
same history; `tests/workflows/test_replay.py` then fails. docs/operations.md, "Upgrades", has the steps. A changed guard,
agent or API needs no new version.

Once no run of an old version can be open any more, remove that version together with its recorded histories.
"""

SCHEMA_VERSION = 8
OLDEST_VERSION = 5


def decides_ahead(version: int) -> bool:
    """Whether the activity `observe` may also return the cycle's choice. Before, each decision was an activity of its own."""
    return version >= 6


def keeps_the_id_of_a_kill(version: int) -> bool:
    """Whether a kill during a restart keeps its id when the restart fails. Before, the kill got a new one."""
    return version >= 6


def a_kill_never_rests(version: int) -> bool:
    """Whether a kill adds a cancel to a lane that is full of failed ones. Before, it waited for their next attempt."""
    return version >= 7


def gives_way_to_refusals(version: int) -> bool:
    """Whether a search attribute that the server refuses is set less and less often. Before, it was once a minute."""
    return version >= 7


def gives_up_paused_calls(version: int) -> bool:
    """Whether a run gives up an activity that somebody has paused. Before, it waited until somebody unpaused it."""
    return version >= 8


class UnknownRules(Exception):
    """Another release began this run, under rules that this release does not know."""


def check_known(version: int) -> None:
    """Refuses a run under unknown rules: if it continued here, the release that began it could never replay it. Raises
    UnknownRules."""
    if not OLDEST_VERSION <= version <= SCHEMA_VERSION:
        raise UnknownRules(
            f"this run has the rules of version {version}, and this worker knows those of versions {OLDEST_VERSION} to"
            f" {SCHEMA_VERSION}: start a worker of the release that began it, and stop this one"
        )
