"""The outbox of one run, as `workflows/outbox.py` has it: which lanes are due, and what each does with an answer.

What is asynchronous there is two events here, `begin` and `end`, so that anything may come between them.
"""

from collections.abc import Callable
from typing import Any

from domain.desk import applying, enforcing, identity, killing, latch, ordering, outbox
from domain.desk.carried import Carried, OrderPhase, PendingOrder
from domain.desk.cycle import NotDone
from domain.desk.recording import Tick
from domain.desk.warnings import Topic, unwarn, warn
from domain.trading.instructions import Tool
from domain.trading.market import LatchRow, Observation
from domain.trading.orders import OrderReport


class Lanes:
    """Everything under way, by lane: `cancel/<tool>/<symbol>`, `settle/<order>`, `deleverage/<symbol>`, and one of each other."""

    def __init__(self, c: Carried, tick: Callable[[], Tick], cycle_is_idle: Callable[[], bool]) -> None:
        self._c = c
        self._tick = tick
        self._cycle_is_idle = cycle_is_idle
        self.under_way: dict[str, Any] = {}

    def due(self) -> list[str]:
        """The lanes that may begin now."""
        c = self._c
        found = [f"cancel/{tool}/{symbol}" for tool, symbol in c.cancels.lanes]
        if not c.hand_over:
            found += self._due_orders() + self._due_restart()
        return [lane for lane in found + self._due_rows() if lane not in self.under_way]

    def _due_orders(self) -> list[str]:
        c = self._c
        found = [f"settle/{p.order.order_id}" for p in c.orders if p.phase is OrderPhase.UNKNOWN]
        found += [f"deleverage/{symbol}" for symbol in ordering.due_deleverages(c)]
        found += ["flatten"] if enforcing.flattening(c) else []
        return found + (["verify"] if killing.verifying(c) else [])

    def _due_rows(self) -> list[str]:
        c = self._c
        found = ["records"] if c.records or c.instruction_rows else []
        is_clearing = c.restart is not None and c.restart.kill_number == c.kill_number
        if is_clearing and ("restart" in self.under_way or self._due_restart()):
            return found
        return [*found, "latch"] if c.latch_due else found

    def _due_restart(self) -> list[str]:
        return ["restart"] if self._c.restart and self._cycle_is_idle() and "latch" not in self.under_way else []

    def begin(self, lane: str) -> None:
        """The lane's next call begins; `under_way` then says with what."""
        c, (kind, *rest) = self._c, lane.split("/")
        match kind:
            case "cancel":
                ids = [cancel.instruction_id for cancel in c.cancels.lane(Tool(rest[0]), rest[1])]
                outbox.cancels_begun(c, ids)
                self.under_way[lane] = ids
            case "settle":
                self.under_way[lane] = next(p for p in c.orders if p.order.order_id == rest[0])
            case "deleverage":
                self.under_way[lane] = ordering.next_deleverage(c, rest[0])
            case "records":
                self.under_way[lane] = outbox.next_batch(c), c.database_id
            case "latch":
                self.under_way[lane] = outbox.desk_row(c), c.database_id
            case "restart":
                self._begin_restart()
            case "verify":
                self.under_way[lane] = c.kill_number, c.kill.quiet_at if c.kill else None
            case _:
                self.under_way[lane] = None

    def _begin_restart(self) -> None:
        restart = self._c.restart
        assert restart is not None
        if self._c.kill_number != restart.kill_number:
            applying.finish_restart(self._c, "a kill came before it was carried out", self._tick())
        else:
            self.under_way["restart"] = restart

    def end(self, lane: str, answer: Any) -> None:
        """The call is answered, or failed (`NotDone`)."""
        asked = self.under_way.pop(lane)
        kind = lane.split("/", maxsplit=1)[0]
        getattr(self, f"_{kind}_ended")(lane, asked, answer)

    def _cancel_ended(self, _lane: str, ids: list[str], answer: Any) -> None:
        if isinstance(answer, NotDone):
            outbox.cancels_failed(self._c, ids, str(answer))
        else:
            outbox.cancels_confirmed(self._c, ids, self._tick().now)

    def _settle_ended(self, _lane: str, pending: PendingOrder, answer: OrderReport | NotDone) -> None:
        name = pending.order.order_id
        if isinstance(answer, NotDone):
            warn(self._c, Topic.ORDER_UNKNOWN, f"the fate of order {name} is unknown: {answer}", name)
        elif answer.fate.is_known:
            ordering.take_report(self._c, pending, answer, self._tick())

    def _deleverage_ended(self, lane: str, pending: Any, answer: Any) -> None:
        """Two calls: what to send, then its fate."""
        if isinstance(pending, PendingOrder):
            ordering.take_report(self._c, pending, answer, self._tick())
        elif not any(waiting is pending for waiting in self._c.deleverages):
            return
        elif answer.instruction is None:
            ordering.nothing_to_send(self._c, pending, answer, self._tick())
        else:
            self.under_way[lane] = ordering.reduction_prepared(self._c, pending, answer, self._tick())

    def _records_ended(self, _lane: str, asked: Any, answer: Any) -> None:
        if isinstance(answer, NotDone):
            warn(self._c, Topic.LOG_UNWRITTEN, str(answer))
            return
        outbox.batch_written(self._c, asked[0])
        identity.database_written(self._c, asked[1], self._tick())
        unwarn(self._c, Topic.LOG_UNWRITTEN)

    def _latch_ended(self, _lane: str, asked: Any, answer: LatchRow | NotDone) -> None:
        if isinstance(answer, NotDone):
            warn(self._c, Topic.LATCH_UNWRITTEN, str(answer))
            return
        latch.row_answered(self._c, asked[0], answer, self._tick())
        identity.database_written(self._c, asked[1], self._tick())
        unwarn(self._c, Topic.LATCH_UNWRITTEN)

    def _restart_ended(self, _lane: str, _asked: Any, answer: Any) -> None:
        error = None if answer is True else f"the latch could not be cleared: {answer}"
        applying.finish_restart(self._c, error, self._tick())

    def _flatten_ended(self, _lane: str, _asked: Any, reading: Observation | None) -> None:
        if reading is not None and enforcing.flattening(self._c):
            enforcing.flatten(self._c, reading, self._tick())

    def _verify_ended(self, _lane: str, asked: Any, reading: Observation | None) -> None:
        c = self._c
        still = killing.verifying(c) and asked == (c.kill_number, c.kill.quiet_at if c.kill else None)
        if reading is not None and still:
            killing.verify(c, reading, self._tick())
