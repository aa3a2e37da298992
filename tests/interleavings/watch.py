"""What must hold after every step, and once a desk has come to rest."""

from collections.abc import Iterable
from typing import Any

from domain.desk.carried import Carried, OrderPhase, Outcome, PendingOrder
from domain.desk.states import CommandKind, Mode, State
from domain.trading.instructions import CANCEL_TOOLS
from domain.trading.symbols import covered_symbols
from tests.interleavings.bounds import too_many
from tests.interleavings.database import FakeDatabase
from tests.interleavings.run import DeskRun

REACHED = ("filled", "half", "open", "empty")


class Watch:
    """Looks at the desk before and after each step."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self._state = State.RUNNING
        self._kill_number = 0
        self._killed_at: Any = None
        self._orders: dict[str, PendingOrder] = {}
        self._phases: dict[str, OrderPhase] = {}

    def before(self, run: DeskRun) -> None:
        """Notes what the step may change."""
        c = run.c
        self._state, self._kill_number, self._killed_at = c.state, c.kill_number, c.last_kill_at
        self._orders = {p.order.order_id: p for p in c.orders}
        self._phases = {name: p.phase for name, p in self._orders.items()}

    def after(self, run: DeskRun, step: Any, databases: Iterable[FakeDatabase]) -> None:
        """Everything that holds after any step."""
        self._killed_is_final(run.c, step)
        self._pause_and_resume(run.c, step)
        self._every_kill_has_its_cancels(run.c)
        self._what_was_in_flight_is_cancelled_again(run.c, step)
        self._nothing_new_unless_running(run)
        self._sent_once_and_written_before(run, databases)
        run.ledger.check(run.c)
        assert not (found := too_many(run.c)), found

    def _killed_is_final(self, c: Carried, step: Any) -> None:
        assert c.kill_number >= self._kill_number
        assert (c.state is State.KILLED) == (c.kill is not None)
        if self._state is State.KILLED is not c.state:
            assert step[:2] == ["end", "restart"], f"{step} led from killed to {c.state}"
            assert c.state is State.RUNNING
            assert c.kill_number == self._kill_number, "a kill that the person did not name was cleared"

    def _pause_and_resume(self, c: Carried, step: Any) -> None:
        names = [name for name, _ in step[1]] if step[0] == "turn" else []
        if self._state is State.PAUSED and c.state is State.RUNNING:
            assert "resume" in names
        if self._state is State.RUNNING and c.state is State.PAUSED:
            assert "pause" in names or "other database" in step

    def _every_kill_has_its_cancels(self, c: Carried) -> None:
        if c.kill_number > self._kill_number and c.last_kill_at != self._killed_at:
            for symbol in covered_symbols(c.symbols, c.seen_symbols):
                self._has_cancels(c, symbol)

    def _has_cancels(self, c: Carried, symbol: str) -> None:
        """Of both markets, by a call that has not begun."""
        for tool in CANCEL_TOOLS if c.mode is not Mode.SHADOW else ():
            lane = c.cancels.lane(tool, symbol)
            assert lane, f"no {tool} of {symbol}"
            assert not lane[-1].begun, f"the {tool} of {symbol} has begun before"

    def _what_was_in_flight_is_cancelled_again(self, c: Carried, step: Any) -> None:
        left = {p.order.order_id for p in c.orders}
        for name, pending in self._orders.items():
            in_flight = self._phases[name] in (OrderPhase.SENDING, OrderPhase.UNKNOWN) and pending.adds_risk
            if in_flight and name not in left and c.state is State.KILLED and step[-1] in REACHED:
                assert c.kill
                assert c.last_kill_at
                if pending.since <= c.last_kill_at:
                    self._has_cancels(c, pending.order.instruction.symbol)

    def _nothing_new_unless_running(self, run: DeskRun) -> None:
        for pending in run.c.orders:
            before = self._phases.get(pending.order.order_id)
            is_new = before is None or (before is OrderPhase.DECIDED and pending.phase is OrderPhase.SENDING)
            if is_new and pending.adds_risk:
                assert run.c.state is State.RUNNING, f"new risk while {run.c.state}"
                assert run.latch_read, "new risk before the latch was read"

    def _sent_once_and_written_before(self, run: DeskRun, databases: Iterable[FakeDatabase]) -> None:
        for pending in run.c.orders:
            name = pending.order.order_id
            if self._phases.get(name) is OrderPhase.SENDING or pending.phase is not OrderPhase.SENDING:
                continue
            assert name not in self.sent, f"{name} was sent twice"
            self.sent.add(name)
            if pending.adds_risk:
                assert any(pending.order.command_id in d.decisions for d in databases), "sent before it was written"

    # --- crashes and ends of runs ------------------------------------------------------------------------------------

    def is_the_same(self, run: DeskRun, again: DeskRun) -> None:
        """A worker that replays the history stands where the last one stood."""
        assert again.c.model_dump_json() == run.c.model_dump_json()
        assert again.request == run.request
        assert list(again.lanes.under_way) == list(run.lanes.under_way)
        assert again.lanes.due() == run.lanes.due()

    def is_carried(self, before: Carried, after: Carried) -> None:
        """The next run has everything, though its memory of it is another object."""
        assert after.model_dump_json() == before.model_dump_json()

    # --- at rest -----------------------------------------------------------------------------------------------------

    def at_rest(self, run: DeskRun, databases: Iterable[FakeDatabase]) -> None:
        """Nothing is left to do: what was acknowledged is written, and a kill is complete."""
        c, known = run.c, list(databases)
        assert not c.orders
        assert not c.cancels
        assert not c.records
        assert not c.instruction_rows
        rows = {row.command_id for database in known for row in database.decisions.values()}
        missing = [
            r.command_id for r in c.commands.values() if _has_a_row(c, r.command_id) and r.command_id not in rows
        ]
        assert not missing, f"no row of {missing}"
        if c.state is State.KILLED:
            self._is_complete(run, known)

    def _is_complete(self, run: DeskRun, databases: list[FakeDatabase]) -> None:
        c = run.c
        assert c.kill
        assert c.latched
        assert c.kill.row_written
        assert c.mode is Mode.SHADOW or c.kill.verified_at
        latch = next(d.latch for d in databases if d.database_id == c.database_id)
        assert latch
        assert (latch.killed, latch.kill_number, latch.kill_id) == (True, c.kill_number, c.kill_id)


def _has_a_row(c: Carried, command_id: str) -> bool:
    """Of a proposal that a cycle took up, the cycle's row tells; the row of what is pending comes with its outcome."""
    record = c.commands[command_id]
    is_taken = record.kind is CommandKind.PROPOSE and record.outcome is Outcome.APPLIED
    return record.outcome is not Outcome.PENDING and not is_taken
