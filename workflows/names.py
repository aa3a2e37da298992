"""Names that operators type: the contract with the `temporal` command line and the web UI (contract/temporal.md)."""

from temporalio.common import SearchAttributeKey

WORKFLOW_TYPE = "Coordinator"
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


def workflow_id(desk: str) -> str:
    """The coordinator's workflow id."""
    return f"coordinator-{desk}"
