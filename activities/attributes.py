"""The activity that asks Temporal which search attributes the namespace knows."""

from collections.abc import Awaitable, Callable

from temporalio import activity

from activities.calls import AttributesCall, Scope
from activities.scope import refuse_other

Registered = Callable[[], Awaitable[set[str]]]


class AttributeActivities:
    """`registered` returns the names of the namespace's custom search attributes, or raises RPCError."""

    def __init__(self, scope: Scope, registered: Registered) -> None:
        self._scope = scope
        self._registered = registered

    @activity.defn(name="missing_attributes")
    async def missing_attributes(self, call: AttributesCall) -> list[str]:
        """The names that the namespace does not know."""
        refuse_other(self._scope, call.scope)
        registered = await self._registered()
        return [name for name in call.names if name not in registered]
