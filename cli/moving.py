"""Moves a desk to another mode at a restart: checks the conditions, and tells a person what will change."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from cli.refusals import Refused
from domain.desk.commands import NewTerms
from domain.desk.states import Mode, State
from domain.desk.status import Status
from domain.trading.symbols import few
from workflows import names
from workflows.gateway import unreachable_text
from workflows.serving import POLLED_WITHIN

ASK_SECONDS = 5.0


class NewMode(NamedTuple):
    """The mode that a person named, and the fingerprint of the account that the settings give for it."""

    mode: Mode
    account: str
    with_positions: bool = False

    def fields(self, terms: NewTerms) -> dict[str, object]:
        """The fields of a restart's signal for these terms and this mode."""
        moved = terms.model_copy(update={"mode": self.mode, "account": self.account})
        return moved.model_dump(exclude_none=True) | ({"with_positions": True} if self.with_positions else {})

    def moves(self, status: Status) -> bool:
        """Whether the desk is in another mode."""
        return status.mode is not self.mode


def check_named(status: Status, terms: NewTerms, new: NewMode | None) -> None:
    """Raises Refused if only the settings name another mode: a variable alone must not turn paper into real money."""
    if new is None and terms.mode not in (None, status.mode):
        raise Refused(
            f"desk {status.desk!r} is in mode {status.mode.value}, but AIS_MODE is {terms.mode}: to change the mode, add "
            f"--mode {terms.mode}. Nothing was restarted"
        )


def check_state(status: Status, new: NewMode) -> None:
    """Raises Refused if the desk clearly cannot move now. The coordinator has the last word."""
    if status.state is not State.KILLED or status.kill is None:
        raise Refused(
            f"desk {status.desk!r} is {status.state.value}: only the restart of a killed desk can change its mode. "
            'First: ais kill --reason "…"'
        )
    verified = status.mode is Mode.SHADOW or status.kill.verified_at is not None
    if not verified or status.unknown_orders or status.open_instructions_total:
        raise Refused(
            f"desk {status.desk!r} still has work to finish in mode {status.mode.value}: wait until `ais status` says "
            "verified, with no open instruction and no unknown order. Nothing was restarted"
        )
    if not new.with_positions and (left := standing(status)):
        raise Refused(
            f"positions or orders are open at the venue of mode {status.mode.value}: {left}. Close them first "
            "(`ais deleverage`), or leave them there unmanaged: --with-positions. Nothing was restarted"
        )


async def check_worker(client: Client, desk: str, mode: Mode) -> None:
    """Raises Refused if no worker of this mode polls: neither the desk nor its kill would then get anywhere."""
    queue = names.activity_queue(desk, mode.value)
    how = f"start one with AIS_DESK={desk} AIS_MODE={mode.value} beside the old one, then repeat. Nothing was restarted"
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    limit = timedelta(seconds=ASK_SECONDS)
    try:
        found = await client.workflow_service.describe_task_queue(request, retry=False, timeout=limit)
    except (RPCError, RuntimeError) as error:
        raise Refused(f"nothing was restarted ({unreachable_text(error)})", passing=True) from error
    polled = [poller.last_access_time.ToDatetime(UTC) for poller in found.pollers]
    if not polled:
        raise Refused(f"no worker of mode {mode.value} is up (nothing polls {queue}): {how}")
    if (ago := datetime.now(UTC) - max(polled)) > POLLED_WITHIN:
        raise Refused(
            f"no worker of mode {mode.value} is up ({queue} was last polled {ago.total_seconds():.0f} s ago): {how}"
        )


def explain(status: Status, new: NewMode) -> str:
    """What the move changes with real money, and what stays behind."""
    lines = [_about_money(status, new)]
    if left := standing(status):
        same = new.account and new.account == status.account
        then = "from now on they belong to this desk" if same else "they stay there, and nothing manages them"
        lines.append(f"Positions and orders at the venue of mode {status.mode.value} ({left}): {then}.")
    if status.mode is Mode.LIVE:
        lines.append("The claim on the account stays until `ais release`.")
    lines.append(
        "Limits, symbols, cycle, log and counters stay, unless you name others. Drawdown and the day's loss start "
        "again from the first reading there."
    )
    return "\n".join(lines)


def afterwards(new: NewMode) -> str:
    """What a person has to do once the desk has moved."""
    return f"Now set AIS_MODE={new.mode.value} for API, worker and command line, and restart the API; then stop the old worker"


def standing(status: Status) -> str:
    """The symbols with a position or an open order in the newest reading."""
    seen = status.observation
    if seen is None:
        return ""
    symbols = {p.symbol for p in seen.positions if p.quantity} | {o.symbol for o in seen.open_orders}
    return few(sorted(symbols))


def _about_money(status: Status, new: NewMode) -> str:
    desk = f"desk {status.desk!r}"
    if new.mode is Mode.LIVE:
        closes = "cancel and close positions" if status.kill_flattens else "cancel"
        return (
            f"REAL MONEY: from its first cycle on {desk} sends orders to the exchange, on the account with the fingerprint "
            f"{new.account}. Kills {closes} there."
        )
    if status.mode is Mode.LIVE:
        return f"NO MORE REAL ORDERS: {desk} sends nothing to the exchange any more, no cancels either."
    return f"No real money, before or after: {desk} sends nothing to the exchange in either mode."
