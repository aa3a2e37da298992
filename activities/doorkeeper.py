"""What every activity of a worker passes through: it works on the desk's own database, and a worker that does not belong
to the desk is told to leave.

The hazard behind this file: a worker that refuses and stays takes the next task as well, and with it the turn of the one
who could serve. One that leaves at once whatever it meets is no better: where the desk's database was lost and made anew, the
only worker there is would go, and a kill's cancels with it. So it leaves where somebody else is known to serve.
"""

from collections.abc import Callable
from datetime import datetime

from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.calls import Scope
from activities.scope import account_text, other_account
from activities.standby import somebody_else
from storage.installation import Expected, expecting

Leave = Callable[[str], None]


class Doorkeeper(Interceptor):
    """`leave` ends the process, with a text that says why."""

    def __init__(self, mine: Scope, leave: Leave) -> None:
        self._mine = mine
        self._leave = leave
        # When the desk's own database was last seen, as this worker met another for the first time.
        self._seen_at: datetime | None = None
        self._met = False

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Temporal's way in."""
        return _Inbound(next, self)

    def look_at(self, asked: Scope, met: Expected | None) -> None:
        """After an activity: leaves where it was meant for somebody else, who is there."""
        if other_account(self._mine, asked):
            self._leave(account_text(self._mine, asked))
        elif met and met.strangers and self._served_meanwhile(asked.database_seen_at):
            self._leave(somebody_else(met.strangers[-1], met.database_id))

    def _served_meanwhile(self, seen_at: datetime | None) -> bool:
        """Both moments are the coordinator's: no clock is compared with another."""
        if not self._met:
            self._met, self._seen_at = True, seen_at
        return seen_at is not None and (self._seen_at is None or seen_at > self._seen_at)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next_: ActivityInboundInterceptor, keeper: Doorkeeper) -> None:
        super().__init__(next_)
        self._keeper = keeper

    async def execute_activity(self, input: ExecuteActivityInput) -> object:
        asked: Scope = input.args[0].scope
        with expecting(asked.database_id) as met:
            try:
                return await super().execute_activity(input)
            finally:
                self._keeper.look_at(asked, met)
