"""A record of a round in which everything holds, made by hand; tests break it in one place each."""

from datetime import UTC, datetime
from typing import Any

from tests.chaos import recorder as r
from tests.chaos.evidence import Change, Event, Evidence, VenueOrder
from tests.chaos.recorder import Call

SYMBOL = "BTCUSDT"
TOOLS = ("cancel_all_orders", "cancel_spot_all_orders")
BEGAN = 1_000_000.0


class Script:
    """Writes a round down, moment by moment; every moment is in seconds since its beginning."""

    def __init__(self) -> None:
        self.e = Evidence(1, False, 1.0, (SYMBOL,), [])
        self._number = 0

    def call(self, at: float, kind: str, answer: str = r.DONE, **more: Any) -> Call:
        """One call of a tenth of a second."""
        told = {"client": "web", "channel": "http", "args": {"api": 0}, **more}
        call = Call(len(self.e.calls), kind=kind, start=BEGAN + at, end=BEGAN + at + 0.1, answer=answer, **told)
        self.e.calls.append(call)
        return call

    def event(self, at: float, kind: str, name: str = "", payload: Any = None, **more: Any) -> Event:
        """One event of the history."""
        self._number += 1
        event = Event(0, self._number, BEGAN + at, kind, name, payload, **more)
        self.e.events.append(event)
        return event

    def activity(self, at: float, name: str, payload: Any, result: Any = None, *, attempts: int = 0) -> None:
        """One activity that ends well at once."""
        scheduled = self.event(at, "scheduled", name, payload, most_attempts=attempts)
        self.event(at + 0.001, "started", scheduled=scheduled.number, attempt=1)
        self.event(at + 0.01, "completed", payload=result, scheduled=scheduled.number)

    def row(self, at: float, summary: str, command_id: str | None, **more: Any) -> dict[str, Any]:
        """A row of the log."""
        row: dict[str, Any] = {
            "decision_id": f"decision_{len(self.e.decisions)}",
            "timestamp": datetime.fromtimestamp(BEGAN + at, UTC),
            "decision_type": "control",
            "summary": summary,
            "command_id": command_id,
            "selected_order_id": None,
            "risk_passed": None,
            **more,
        }
        self.e.decisions.append(row)
        self.change(at, "public.decisions", "INSERT", row)
        return row

    def change(self, at: float, place: str, op: str, row: dict[str, Any]) -> None:
        """A change of a row, committed at once."""
        self.e.changes.append(Change(len(self.e.changes), BEGAN + at, BEGAN + at, place, op, dict(row)))

    # --- scenes --------------------------------------------------------------------------------------------------------

    def command(self, at: float, kind: str, command_id: str, result: str = "applied") -> None:
        """A command over HTTP that is carried out."""
        self.call(at, kind, command_id=command_id, token=f"why-{command_id}", status=200)
        self.event(at + 0.05, "signal", kind, {"command_id": command_id, "reason": f"why-{command_id}"})
        self.row(at + 0.05, f"{kind} {result} by http: why-{command_id}", command_id)

    def state(self, at: float, state: str) -> None:
        """Somebody reads the state."""
        self.call(at, "status", state=state, status=200)

    def cancels(self, at: float, command_id: str, number: int) -> None:
        """The cancels of a kill, and the desk's row."""
        calls = [
            {"tool": tool, "symbol": SYMBOL, "instruction_ids": [f"{command_id}:{number}:{tool}:{SYMBOL}"]}
            for tool in TOOLS
        ]
        self.activity(at, "cancel_many", {"cancels": calls}, [{"done": True, "error": None}] * len(calls))
        for call in calls:
            row: dict[str, Any] = {
                "instruction_id": call["instruction_ids"][0],
                "tool": call["tool"],
                "symbol": SYMBOL,
                "detail": None,
            }
            row |= {
                "outcome": "confirmed",
                "venue_order_id": None,
                "prepared_at": datetime.fromtimestamp(BEGAN + at, UTC),
            }
            self.change(at, "public.instructions", "INSERT", row | {"outcome": "prepared"})
            self.change(at + 0.02, "public.instructions", "UPDATE", row)
            self.e.instructions.append(row)
        self.desk(at + 0.02, True, number, None)

    def desk(self, at: float, killed: bool, number: int, cleared_by: str | None) -> None:
        """The desk's row."""
        self.e.desk_row = {"killed": killed, "kill_number": number, "cleared_by": cleared_by}
        self.change(at, "public.desks", "UPDATE", self.e.desk_row)

    def order(self, at: float, name: str) -> None:
        """An order that is decided, committed, and sent."""
        row = self.row(
            at - 0.1, "Selected BTCUSDT", None, decision_type="order_intent", selected_order_id=name, risk_passed=True
        )
        told = {"batch": {"decisions": [{"selected_order_id": name, "decision_id": row["decision_id"]}]}}
        self.activity(at - 0.12, "record", told)
        order = {"order_id": name, "instruction": {"reduce_only": False, "symbol": SYMBOL}}
        self.activity(at - 0.05, "place_order", {"order": order}, attempts=1)
        when = BEGAN + at
        self.e.orders.append(VenueOrder(name, SYMBOL, "filled", False, when, when + 0.4, when + 0.01, 1.0))
        row = {"instruction_id": name, "tool": "create_order", "symbol": SYMBOL, "detail": None, "outcome": "confirmed"}
        row |= {"venue_order_id": None, "prepared_at": datetime.fromtimestamp(BEGAN + at - 0.1, UTC)}
        self.change(at + 0.02, "public.instructions", "INSERT", row)
        self.e.instructions.append(row)


def a_sound_round() -> Evidence:
    """An order; paused, resumed, killed, cancelled, restarted, and killed again."""
    s = Script()
    s.event(0.0, "began")
    s.order(1.0, "ord_1")
    s.command(2.0, "pause", "p1")
    s.state(2.3, "paused")
    s.command(3.0, "resume", "r1")
    s.state(3.3, "running")
    s.order(3.5, "ord_2")
    s.command(4.0, "kill", "k1")
    s.cancels(4.06, "k1", 1)
    s.state(4.3, "killed")
    s.call(
        4.5, "kill", r.INVALID, client="stranger", token="stranger-kill", status=401, args={"key": "wrong", "api": 0}
    )
    s.call(5.0, "cancel", r.ACCEPTED, channel="temporal", token="cancel-1")
    s.event(5.05, "cancel_requested", payload="cancel-1")
    s.row(5.05, "kill repeated by cancel: cancel-1", "command_9")
    s.cancels(5.06, "command_9", 2)
    s.call(6.0, "restart", client="operator", channel="ais", token="operator-restart")
    row = s.row(6.05, "restart applied by cli: operator-restart", "restart-1")
    s.desk(6.06, False, 2, row["decision_id"])
    s.state(6.3, "running")
    s.command(7.0, "kill", "k2")
    s.cancels(7.06, "k2", 3)
    s.e.status = {"state": "killed", "kill_number": 3, "kill": {"verified_at": _iso(8.0)}}
    s.e.healed_at, s.e.settled_at = BEGAN + 8.0, BEGAN + 9.0
    return s.e


def _iso(at: float) -> str:
    return datetime.fromtimestamp(BEGAN + at, UTC).isoformat()


def call_of(e: Evidence, command_id: str) -> Call:
    """The call of a command."""
    return next(call for call in e.calls if command_id in (call.command_id, call.token))


def row_of(e: Evidence, text: str) -> dict[str, Any]:
    """The row of the log whose summary has this text."""
    return next(row for row in e.decisions if text in row["summary"])


def instruction_of(e: Evidence, name: str) -> dict[str, Any]:
    """The instruction whose id begins like this."""
    return next(row for row in e.instructions if row["instruction_id"].startswith(name))


def event_of(e: Evidence, kind: str, name: str = "", nth: int = 0) -> Event:
    """The nth event of a kind."""
    return [event for event in e.events if event.kind == kind and event.name == name][nth]
