"""Runs around every activity: it must use the desk's own database, and a worker that does not belong to the desk exits.
(Whether an order may go out is decided in `act.py`.)

The hazard behind this file: a worker that refuses a task but stays up takes the next one too, in place of a worker that
could serve it. A worker that always exits at once is no better: if the desk's database was lost and recreated, the only
worker would exit, and nobody would send a kill's cancels. So a worker exits only if another one is known to serve the desk.
"""

from collections.abc import Callable
from datetime import datetime

from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.calls import Scope
from activities.scope import account_text, other_account
from activities.standby import somebody_else
from storage.installation import ExpectedDatabase, expecting

Leave = Callable[[str], None]


class WrongWorkerExit(Interceptor):
    """Temporal's hook around each activity. `leave` ends the process; its argument says why."""

    def __init__(self, mine: Scope, leave: Leave) -> None:
        self._mine = mine
        self._leave = leave
        # When the desk's own database was last seen, as of this worker's first activity with another database.
        self._seen_at: datetime | None = None
        self._met = False

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Called by Temporal."""
        return _Inbound(next, self)

    def look_at(self, asked: Scope, met: ExpectedDatabase | None) -> None:
        """After an activity: exits if the activity was meant for another worker and that worker is up."""
        if other_account(self._mine, asked):
            self._leave(account_text(self._mine, asked))
        elif met and met.others:
            # Both times are the coordinator's: no two clocks are compared.
            seen_at = asked.database_seen_at
            if not self._met:
                self._met, self._seen_at = True, seen_at
            if seen_at is not None and (self._seen_at is None or seen_at > self._seen_at):
                self._leave(somebody_else(met.others[-1], met.database_id))


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next_: ActivityInboundInterceptor, keeper: WrongWorkerExit) -> None:
        super().__init__(next_)
        self._keeper = keeper

    async def execute_activity(self, input: ExecuteActivityInput) -> object:
        asked: Scope = input.args[0].scope
        with expecting(asked.database_id) as met:
            try:
                return await super().execute_activity(input)
            finally:
                self._keeper.look_at(asked, met)
