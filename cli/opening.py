"""Opens a desk's coordinator in Temporal: what a start fixes, what the first run carries, and how an operator finds it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

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
from domain.desk.commands import NewTerms
from domain.desk.states import Mode, State
from domain.desk.terms import configured_terms, data_age
from domain.risk.limits import Limits
from workflows import names
from workflows.coordinator import Coordinator
from workflows.gateway import registered_attributes
from workflows.patience import TASK_TIMEOUT


@dataclass(frozen=True)
class DeskTerms:
    """What a start fixes and a restart can change. Of the limits, only the one on the age of data follows the cycle."""

    desk: str
    mode: Mode
    symbols: tuple[str, ...]
    cycle_seconds: float
    limits: Limits
    kill_flattens: bool = False
    # The venue account's fingerprint. None if this process does not know it; the first reading then supplies it.
    account: str | None = None

    def terms(self) -> NewTerms:
        """The terms that a restart compares with those of an open coordinator."""
        return configured_terms(self, self.kill_flattens)

    def with_terms(self, terms: NewTerms) -> "DeskTerms":
        """The same, with these terms instead."""
        asked = terms.model_dump(exclude_none=True, exclude={"mode"})
        if terms.symbols is not None:
            asked["symbols"] = tuple(terms.symbols)
        if terms.cycle_seconds is not None:
            age = data_age(self.limits.max_data_age_seconds, self.cycle_seconds, terms.cycle_seconds)
            asked["limits"] = Limits.model_validate({**self.limits.model_dump(), "max_data_age_seconds": age})
        return replace(self, **asked)

    def carried(self, kill_number: int, database_id: str | None, search_attributes: bool) -> Carried:
        """What the first run of a coordinator starts with."""
        now = datetime.now(UTC)
        return Carried(
            desk=self.desk,
            mode=self.mode,
            symbols=list(self.symbols),
            cycle_seconds=self.cycle_seconds,
            limits=self.limits,
            kill_flattens=self.kill_flattens,
            database_id=database_id,
            account=self.account,
            database_seen_at=now,
            search_attributes=search_attributes,
            started_at=now,
            since=now,
            kill_number=kill_number,
            latched_number=kill_number,
            # Command ids may be reused, and the database has their instructions. Each kill counted for one round at most.
            forgotten_rounds=kill_number,
            shown_state=State.RUNNING if search_attributes else None,
        )


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
