"""Opens a desk's coordinator in Temporal, where an operator finds it."""

from collections.abc import Callable

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.service import RPCError

from domain.desk.carried import Carried
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import registered_attributes
from workflows.patience import TASK_TIMEOUT


async def register_search_attributes(client: Client, say: Callable[[str], None]) -> bool:
    """Registers the missing attributes if it may. Otherwise the desk starts anyway, and never sets them."""
    wanted = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in names.SEARCH_ATTRIBUTES}
    try:
        registered = await registered_attributes(client)
        if missing := {name: kind for name, kind in wanted.items() if name not in registered}:
            request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
            await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        options = " ".join(f"--name {name} --type Keyword" for name in wanted)
        say(
            f"warning: the search attributes could not be registered ({error.message}); the desk runs without them, and "
            f"`temporal workflow list --query 'AisState=…'` will not find it. An administrator can register them before the "
            f"next start: temporal operator search-attribute create {options}"
        )
        return False
    return True


async def start_coordinator(client: Client, carried: Carried, reuse: WorkflowIDReusePolicy) -> None:
    """Starts the workflow. Raises what Temporal's client raises."""
    attributes = [
        SearchAttributePair(names.DESK_ATTRIBUTE, carried.desk),
        SearchAttributePair(names.STATE_ATTRIBUTE, carried.state.value),
        SearchAttributePair(names.MODE_ATTRIBUTE, carried.mode.value),
    ]
    await client.start_workflow(
        Coordinator.run,
        carried,
        id=names.workflow_id(carried.desk),
        task_queue=names.TASK_QUEUE,
        id_reuse_policy=reuse,
        # Never take over a coordinator that somebody else has just started: it may be killed already.
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        task_timeout=TASK_TIMEOUT,
        search_attributes=TypedSearchAttributes(attributes) if carried.search_attributes else None,
        static_summary=f"AIS desk {carried.desk} ({carried.mode.value})",
        static_details="Kill it with the signal `kill` or the Cancel button; see docs/runbook.md.",
    )
