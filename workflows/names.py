"""Names that operators type: what we promise to the `temporal` command line and the web UI (docs/runbook.md)."""

from temporalio.common import SearchAttributeKey

WORKFLOW_TYPE = "Coordinator"
# Of workflow tasks, which any worker can do, and of the activities of runs that began before each desk had its own.
TASK_QUEUE = "ais"

STATUS_QUERY = "status"
OUTCOME_QUERY = "outcome"
OUTCOMES_QUERY = "outcomes"

# What a run answers for the moment in which it reads the latch; it kills all the same.
LATCH_UNREAD = "this run has not read the latch in the database yet; ask again in a moment"

DESK_ATTRIBUTE = SearchAttributeKey.for_keyword("AisDesk")
STATE_ATTRIBUTE = SearchAttributeKey.for_keyword("AisState")
MODE_ATTRIBUTE = SearchAttributeKey.for_keyword("AisMode")
SEARCH_ATTRIBUTES = (DESK_ATTRIBUTE, STATE_ATTRIBUTE, MODE_ATTRIBUTE)


def activity_queue(desk: str, mode: str) -> str:
    """The task queue of one desk's activities in one mode: a worker of another never draws them."""
    return f"{TASK_QUEUE}-{desk}-{mode}"


def workflow_id(desk: str) -> str:
    """The coordinator's workflow id."""
    return f"coordinator-{desk}"
