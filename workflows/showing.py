"""The show task: sets AisState, the search attribute by which people list desks.

The incident behind this file: somebody removed the attribute while a desk ran. Every workflow task with a kill also set the
attribute, the server refused the task, and no cancel went out until the attribute was back. So a workflow task without any
command sets it, after a check that it is registered. If the server still refuses, the show task gives up.
"""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ActivityError

from workflows import names
from workflows.run import CoordinatorRun

with workflow.unsafe.imports_passed_through():
    from activities import calls, options
    from domain.desk.states import State
    from domain.desk.versions import gives_way_to_refusals
    from domain.desk.warnings import Topic, unwarn, warn

MOMENT_SECONDS = 0.01
LOOK_AGAIN = timedelta(seconds=60)
# Each refusal doubles it, up to about an hour: a refused task holds up a kill for seconds.
MOST_DOUBLINGS = 6
# After this long, the server has refused the task and is retrying it: setting the attribute would fail it once more.
LATE = timedelta(seconds=2)
MAX_POSTPONED = 20
MISSING = "the namespace does not know the search attribute"
REFUSED = (
    "Temporal seems to refuse the search attributes: the run cannot end with them, and lists of desks miss this one"
)
HOW_TO_LOOK = "`temporal operator search-attribute list` must show AisDesk, AisMode and AisState"
HOW_TO_ADD = "add it by `temporal operator search-attribute create --type Keyword --name` and its name"
# If a run continues without naming any attribute, it inherits those of the previous run, registered or not. This one is
# Temporal's own.
_FILLER = SearchAttributePair(SearchAttributeKey.for_keyword("BatcherUser"), "")


class ShowTask:
    """Keeps AisState up to date. `idle` while no update is under way."""

    def __init__(self, run: CoordinatorRun) -> None:
        self._run = run
        self._c = run.c
        self._missing: list[str] = []
        self._tried: tuple[State, datetime] | None = None
        self._refusals = 0
        self.idle = True

    @property
    def attributes(self) -> TypedSearchAttributes | None:
        """The attributes for the next run: none of ours if the server refused them, None if the desk was started without any."""
        c = self._c
        if not c.search_attributes:
            return None
        if c.attributes_refused:
            return TypedSearchAttributes([_FILLER])
        state = c.shown_state or c.state
        pairs = [
            SearchAttributePair(names.DESK_ATTRIBUTE, c.desk),
            SearchAttributePair(names.MODE_ATTRIBUTE, c.mode.value),
            SearchAttributePair(names.STATE_ATTRIBUTE, state.value),
        ]
        return TypedSearchAttributes([pair for pair in pairs if pair.key.name not in self._missing] or [_FILLER])

    async def run(self) -> None:
        """Shows each change of state for as long as the run lasts."""
        while True:
            await workflow.wait_condition(self._is_due)
            self.idle = False
            await self._show()
            self.idle = True

    async def look_before_the_end(self) -> None:
        """Checks again before the run ends: the server refuses to start a run with an unregistered attribute."""
        if self._c.search_attributes:
            await self._look()

    def leave_out(self) -> None:
        """Starts the next run without our attributes, since this run cannot end with them. The show task sets them again once an
        activity has found out which of them the namespace knows."""
        if self._c.search_attributes:
            self._c.attributes_refused = True
            warn(self._c, Topic.SEARCH_ATTRIBUTE, f"{REFUSED}; {HOW_TO_LOOK}")

    def _is_due(self) -> bool:
        c = self._c
        if self._run.draining or not self._run.may_tell or not c.search_attributes or c.shown_state is c.state:
            return False
        gives_way = gives_way_to_refusals(c.schema_version)
        rest = LOOK_AGAIN * 2 ** min(self._refusals, MOST_DOUBLINGS) if gives_way else LOOK_AGAIN
        return self._tried is None or self._tried[0] is not c.state or workflow.now() - self._tried[1] > rest

    async def _show(self) -> None:
        self._tried = (self._c.state, workflow.now())
        await self._look()
        if self._c.attributes_refused:
            # No check since then has shown that the server takes them, and a refused task would hold up a kill for seconds.
            return
        for _ in range(MAX_POSTPONED if names.STATE_ATTRIBUTE.name not in self._missing else 0):
            began = workflow.now()
            await asyncio.sleep(MOMENT_SECONDS)
            if workflow.now() - began > LATE:
                self._refusals += 1
                return
            if not self._run.task_brought_command:
                workflow.upsert_search_attributes([names.STATE_ATTRIBUTE.value_set(self._c.state.value)])
                self._c.shown_state = self._c.state
                self._refusals = 0
                return

    async def _look(self) -> None:
        call = calls.AttributesCall(scope=self._run.scope, names=[key.name for key in names.SEARCH_ATTRIBUTES])
        try:
            self._missing = await self._run.calling.answer_of(
                calls.missing_attributes, call, task_queue=self._run.queue, **options.ATTRIBUTES
            )
        except ActivityError:
            # The worker may lack the right to ask (on Temporal Cloud): keep the last answer.
            return
        self._c.attributes_refused = False
        unwarn(self._c, Topic.SEARCH_ATTRIBUTE)
        if self._missing:
            text = f"{MISSING} {', '.join(self._missing)}, so that lists of desks are out of date; {HOW_TO_ADD}"
            warn(self._c, Topic.SEARCH_ATTRIBUTE, text)
        self._run.changed = True
