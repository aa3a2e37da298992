"""A record of a round in which everything holds, made by hand; tests break it in one place each."""

from datetime import UTC, datetime
from typing import Any

from tests.chaos import recorder as r
from tests.chaos.evidence import Change, Event, Evidence, VenueOrder, Version
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

    def activity(
        self, at: float, name: str, payload: Any, result: Any = None, *, attempts: int = 0, takes: float = 0.01
    ) -> None:
        """One activity that ends well, and at once."""
        scheduled = self.event(at, "scheduled", name, payload, most_attempts=attempts)
        self.event(at + 0.001, "started", scheduled=scheduled.number, attempt=1)
        self.event(at + takes, "completed", payload=result, scheduled=scheduled.number)

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

    def command(self, at: float, kind: str, command_id: str, result: str = "applied", **more: Any) -> None:
        """A command over HTTP that is carried out."""
        call = self.call(at, kind, command_id=command_id, token=f"why-{command_id}", status=200, **more)
        self.event(at + 0.05, "signal", kind, {**call.args, "command_id": command_id, "reason": call.token})
        self.event(at + 0.06, "task_completed")
        self.row(at + 0.05, f"{kind} {result} by http: why-{command_id}", command_id)
        self.e.outcomes[command_id] = "applied"

    def state(self, at: float, state: str) -> None:
        """Somebody reads the state."""
        self.call(at, "status", state=state, status=200)

    def cancels(self, at: float, command_id: str, number: int) -> None:
        """The cancels of a kill, and the desk's row."""
        self.canceled(at, command_id, number)
        self.desk(at + 0.02, True, number, None)

    def canceled(self, at: float, command_id: str, number: int) -> None:
        """The cancels of a command."""
        calls = [
            {"tool": tool, "symbol": SYMBOL, "instruction_ids": [f"{command_id}:{number}:{tool}:{SYMBOL}"]}
            for tool in TOOLS
        ]
        self.activity(at, "cancel_many", {"cancels": calls}, [{"done": True, "error": None}] * len(calls))
        for call in calls:
            row: dict[str, Any] = {
                "instruction_id": call["instruction_ids"][0],
                "round": number,
                "tool": call["tool"],
                "symbol": SYMBOL,
                "detail": None,
            }
            row |= {
                "outcome": "confirmed",
                "venue_order_id": None,
                "prepared_at": datetime.fromtimestamp(BEGAN + at, UTC),
                "settled_at": datetime.fromtimestamp(BEGAN + at + 0.02, UTC),
            }
            self.change(at, "public.instructions", "INSERT", row | {"outcome": "prepared"})
            self.change(at + 0.02, "public.instructions", "UPDATE", row)
            self.e.instructions.append(row)

    def desk(self, at: float, killed: bool, number: int, cleared_by: str | None) -> None:
        """The desk's row."""
        self.e.desk_row = {"killed": killed, "kill_number": number, "cleared_by": cleared_by, "quiet_at": BEGAN + at}
        self.change(at, "public.desks", "UPDATE", self.e.desk_row)

    def order(self, at: float, name: str) -> None:
        """An order that is decided, committed, and sent."""
        row = self.row(
            at - 0.1, "Selected BTCUSDT", None, decision_type="order_intent", selected_order_id=name, risk_passed=True
        )
        self.activity(at - 0.15, "decide", {"limits": {"max_leverage": "1.80"}}, {})
        told = {"batch": {"decisions": [{"selected_order_id": name, "decision_id": row["decision_id"]}]}}
        self.activity(at - 0.12, "record", told)
        self.sent(at, name, _of_the_venue(name, at, "filled", 1.0))

    def rest(self, at: float, name: str, until: float) -> None:
        """An agent's order that rests until it is cancelled. No decision and no record: whoever needs them, adds them."""
        order = _of_the_venue(name, at, "canceled", 0.0)
        order.versions.insert(0, Version(BEGAN + at, BEGAN + at + 0.01, "open", 0.0))
        order.versions[-1].written = order.versions[-1].committed = BEGAN + until
        order.price, order.reduce_only = 90.0, True
        self.sent(at, name, order)

    def sent(self, at: float, name: str, order: VenueOrder) -> None:
        """The send, what the venue makes of it, and what the log says of that."""
        facts = {"symbol": SYMBOL, "side": "BUY", "reduce_only": order.reduce_only, "quantity": "1"}
        told = {"order_id": name, "command_id": name, "agent_id": "momentum", "instruction": facts}
        told |= {"prepared_at": _iso(at - 0.1), "not_after": _iso(at + 0.9)}
        fate = "open" if order.versions[0].status == "open" else "filled"
        report = {"order_id": name, "fate": fate, "filled_quantity": str(order.versions[0].filled)}
        self.activity(at - 0.05, "place_order", {"order": told}, report, attempts=1, takes=0.08)
        self.e.orders.append(order)
        row = {
            "instruction_id": name,
            "round": 1,
            "tool": "create_order",
            "detail": None,
            "outcome": "confirmed",
            **facts,
        }
        row |= {
            "venue_order_id": None,
            "prepared_at": datetime.fromtimestamp(BEGAN + at - 0.1, UTC),
            "settled_at": datetime.fromtimestamp(BEGAN + at, UTC),
            "price": order.price,
        }
        self.change(at + 0.02, "public.instructions", "INSERT", row)
        self.e.instructions.append(row)

    def reading(self, at: float, held: str, *resting: str) -> None:
        """A reading of the account."""
        seen: dict[str, Any] = {"observed_at": _iso(at), "rules": {SYMBOL: {"lot_step": "0.01"}}}
        seen |= {"open_orders": [{"order_id": name} for name in resting]}
        self.activity(at - 0.005, "observe", {}, seen | {"positions": [{"symbol": SYMBOL, "quantity": held}]})

    def planned(self, at: float, held: str, quantity: str) -> None:
        """A reduction by half, and the order that is to do it."""
        order = {"symbol": SYMBOL, "side": "SELL", "reduce_only": True, "quantity": quantity}
        asked = {"symbol": SYMBOL, "reduce_pct": "0.5", "quantity": None}
        self.activity(at, "plan_deleverage", asked, {"instruction": order, "position": held, "closed": False})


def _of_the_venue(name: str, at: float, status: str, filled: float) -> VenueOrder:
    when = BEGAN + at
    order = VenueOrder(name, SYMBOL, status, False, when, when + 0.4, when + 0.01, filled, quantity=1.0)
    order.versions.append(Version(when, when + 0.01, status, filled))
    return order


def a_sound_round() -> Evidence:
    """An order; paused, resumed, killed, cancelled, restarted, and killed again."""
    s = Script()
    s.event(0.0, "began")
    s.call(0.3, "propose", r.ACCEPTED, command_id="q1", status=202)
    s.event(0.35, "signal", "propose", {"command_id": "q1"})
    s.e.outcomes["q1"] = "applied"
    s.command(0.5, "set_limits", "l1", args={"api": 0, "limits": {"max_leverage": "1.8"}})
    s.order(1.0, "ord_1")
    s.command(2.0, "pause", "p1")
    s.state(2.3, "paused")
    s.command(3.0, "resume", "r1")
    s.state(3.3, "running")
    s.command(3.35, "cancel_all", "c1")
    s.canceled(3.4, "c1", 1)
    s.order(3.6, "ord_2")
    s.planned(3.65, "2", "1.00")
    s.rest(3.7, "ord_3", until=4.065)
    s.reading(3.8, "2", "ord_3")
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
    s.activity(6.05, "clear_latch", {"row": row}, True)
    s.desk(6.06, False, 2, row["decision_id"])
    s.state(6.3, "running")
    s.command(7.0, "kill", "k2")
    s.cancels(7.06, "k2", 3)
    s.reading(8.0, "2")
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
