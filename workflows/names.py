"""Names that operators type. The `temporal` command line and the web UI depend on them (docs/runbook.md)."""

from temporalio.common import SearchAttributeKey

WORKFLOW_TYPE = "Coordinator"
# For workflow tasks, which any worker can do, and for the activities of runs from before each desk had its own queue.
TASK_QUEUE = "ais"

STATUS_QUERY = "status"
OUTCOME_QUERY = "outcome"
OUTCOMES_QUERY = "outcomes"

# What a run answers until it has read the latch. It obeys a kill all the same.
LATCH_UNREAD = "this run has not read the latch in the database yet; ask again in a moment"

DESK_ATTRIBUTE = SearchAttributeKey.for_keyword("AisDesk")
STATE_ATTRIBUTE = SearchAttributeKey.for_keyword("AisState")
MODE_ATTRIBUTE = SearchAttributeKey.for_keyword("AisMode")
SEARCH_ATTRIBUTES = (DESK_ATTRIBUTE, STATE_ATTRIBUTE, MODE_ATTRIBUTE)


def activity_queue(desk: str, mode: str) -> str:
    """The task queue of one desk's activities in one mode. Workers of other desks and modes never poll it."""
    return f"{TASK_QUEUE}-{desk}-{mode}"


def workflow_id(desk: str) -> str:
    """The coordinator's workflow id."""
    return f"coordinator-{desk}"
