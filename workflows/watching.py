"""Wakes the run while a command is under way, so that no activity which somebody has paused holds it up for ever.

Otherwise a run needs no watch: each command that arrives, the timer of each cycle, and its end give up what is overdue.
"""

from temporalio import workflow

from workflows.run import CoordinatorRun

with workflow.unsafe.imports_passed_through():
    from activities import options
    from domain.desk import killing
    from domain.desk.versions import gives_up_paused_calls
    from domain.trading.instructions import Tool


class WatchTask:
    """Gives up overdue calls every half minute until the command is done."""

    def __init__(self, run: CoordinatorRun) -> None:
        self._run = run

    async def run(self) -> None:
        """Runs for as long as the run lasts."""
        if not gives_up_paused_calls(self._run.c.schema_version):
            await workflow.wait_condition(lambda: False)
        while True:
            await workflow.wait_condition(self._is_waiting)
            await workflow.sleep(options.WATCH_SECONDS, summary="until what is paused is given up")
            self._run.calling.give_up_overdue()

    def _is_waiting(self) -> bool:
        c = self._run.c
        # An order that is only being replaced is no command, and the next cycle gives up its cancel.
        cancels = any(tool is not Tool.CANCEL_ORDER for tool, _ in c.cancels.lanes)
        pending = c.restart or c.addition or c.deleverages or cancels
        return self._run.draining or bool(pending) or killing.under_way(c)
