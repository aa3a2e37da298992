"""A round as a person reads it: who said what, what broke, and what did not hold, in the order of time."""

from collections.abc import Iterator

from tests.chaos.evidence import Event, Evidence
from tests.chaos.reading import Violation
from tests.chaos.recorder import Call

Line = tuple[float, str, str]
WIDTH = 150


def timeline(found: Evidence, violations: list[Violation], *, around: float | None = 4.0) -> str:
    """All lines, or those within so many seconds of a violation."""
    lines = sorted([*_calls(found), *_faults(found), *_events(found), *_orders(found), *_violations(violations)])
    if around is not None and violations:
        lines = [line for line in lines if any(abs(line[0] - v.at) <= around for v in violations)]
    began = min((call.start for call in found.calls), default=0.0)
    return "\n".join(f"{at - began:8.3f} s  {who:<10} {text}"[:WIDTH] for at, who, text in lines)


def _calls(found: Evidence) -> Iterator[Line]:
    for call in found.calls:
        if call.kind == "status":
            yield call.end or call.start, call.client, f"reads {call.state or call.status or call.told}"
        else:
            yield call.start, call.client, f"{call.kind} {_name(call)} over {call.channel} …"
            if call.end is not None:
                took = call.end - call.start
                yield (
                    call.end,
                    call.client,
                    f"… {call.kind} {_name(call)}: {call.answer} {call.status or ''} after {took:.2f} s",
                )


def _name(call: Call) -> str:
    return call.command_id or call.token or ""


def _faults(found: Evidence) -> Iterator[Line]:
    return ((note.at, "FAULT" if note.fault else "fault", note.text) for note in found.notes)


def _events(found: Evidence) -> Iterator[Line]:
    for event in found.events:
        if text := _event(event):
            yield event.at, f"run {event.run}", text


def _event(event: Event) -> str | None:
    said = event.payload if isinstance(event.payload, dict) else {}
    match event.kind:
        case "signal":
            return f"signal {event.name} {said.get('command_id') or said.get('reason') or ''}"
        case "cancel_requested":
            return f"cancellation {event.payload}"
        case "began" | "continued" | "task_failed" | "ended":
            return f"{event.kind} {event.name}"
        case "scheduled" if event.name == "place_order":
            return f"sends {said['order']['order_id']}"
        case "scheduled" if event.name in ("cancel", "cancel_many", "write_desk", "clear_latch"):
            return event.name
    return None


def _orders(found: Evidence) -> Iterator[Line]:
    return ((order.at, "venue", f"order {order.order_id} {order.symbol}: {order.status}") for order in found.orders)


def _violations(violations: list[Violation]) -> Iterator[Line]:
    return ((v.at, f"!! {v.invariant}", v.text) for v in violations)
