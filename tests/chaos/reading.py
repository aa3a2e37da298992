"""What the checker reads out of the evidence, once for all invariants."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.chaos import recorder as r
from tests.chaos.evidence import RESTS, Event, Evidence, VenueOrder
from tests.chaos.recorder import Call, Note

CANCEL_TOOLS = ("cancel_all_orders", "cancel_spot_all_orders")
REMEMBERS_IDS = 5
KILLED_ROWS = ("kill applied", "kill repeated")
STATE_KINDS = ("pause", "resume", "kill", "restart")
ACCEPTED_BY_THE_VENUE = ("open", "filled", "partially_filled", "canceled", "expired", "new")


@dataclass(frozen=True)
class Violation:
    """What did not hold, when, and by which function's account."""

    invariant: str
    rule: str
    text: str
    at: float = 0.0


@dataclass(frozen=True)
class Activity:
    """One activity of a history, from its scheduling to its end."""

    scheduled: Event
    started: Event | None
    done: Event | None
    position: int
    done_position: int | None

    @property
    def name(self) -> str:
        """Its type."""
        return self.scheduled.name

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.done is not None and self.done.kind == "completed"

    @property
    def result(self) -> Any:
        """What it returned; None unless it ended well."""
        return self.done.payload if self.done and self.succeeded else None

    @property
    def ended(self) -> float:
        """When; as good as never where the history does not say."""
        return self.done.at if self.done else float("inf")


@dataclass(frozen=True)
class CancelTry:
    """One cancel of one lane, alone or together with others."""

    activity: Activity
    tool: str
    symbol: str
    instruction_ids: tuple[str, ...]
    confirmed: bool
    # The venue's ids, where single orders are meant.
    order_ids: tuple[str, ...] = ()
    # A call that an earlier activity began, and whose answer this one waits for.
    goes_on: bool = False

    @property
    def lane(self) -> tuple[str, str]:
        """One call after the other."""
        return self.tool, self.symbol

    def covers(self, order: VenueOrder) -> bool:
        """Whether it leaves nothing of an order that rested before it began."""
        if self.tool not in CANCEL_TOOLS:
            return order.order_id in self.order_ids
        market = "spot" if "spot" in self.tool else "futures"
        return (order.market, order.symbol) == (market, self.symbol)


class Reading:
    """The evidence with its parts found."""

    def __init__(self, evidence: Evidence) -> None:
        self.e = evidence

    # --- calls ---------------------------------------------------------------------------------------------------------

    def calls(self, *kinds: str) -> list[Call]:
        """Of these kinds, by those who hold the key."""
        return [call for call in self.e.calls if call.kind in kinds and "key" not in call.args]

    def disturbed(self, start: float, end: float, *targets: str, after: float = 3.0) -> bool:
        """Whether a fault of one of these touched the time between; what comes back needs a moment."""
        return any(_touches(note, start, end, after) for note in self.e.notes if note.fault and note.target in targets)

    # --- the log -------------------------------------------------------------------------------------------------------

    @cached_property
    def control_rows(self) -> list[dict[str, Any]]:
        """In the order in which they were made."""
        rows = [row for row in self.e.decisions if row["decision_type"] == "control"]
        return sorted(rows, key=lambda row: (row["timestamp"], row["decision_id"]))

    @cached_property
    def rows_in_order(self) -> list[dict[str, Any]]:
        """Those of commands, and those of orders that were decided."""
        rows = [row for row in self.e.decisions if row["decision_type"] == "control" or row["selected_order_id"]]
        return sorted(rows, key=lambda row: (row["timestamp"], row["decision_id"]))

    def applied(self, command_id: str, kind: str) -> list[dict[str, Any]]:
        """The rows that say that a command was carried out."""
        return [row for row in self.rows_of(command_id, None) if row["summary"].startswith(f"{kind} applied by ")]

    def forgets_ids(self, row: dict[str, Any]) -> bool:
        """Whether it is a restart's under the rules of version 4: from 5 on, ids are known after it as before."""
        at, restarts = row["timestamp"].timestamp(), row["summary"].startswith("restart applied")
        begun = [event for event in self.e.events if event.kind == "began" and event.at <= at]
        return restarts and bool(begun) and (begun[-1].payload or REMEMBERS_IDS) < REMEMBERS_IDS

    def rows_of(self, command_id: str | None, token: str | None) -> list[dict[str, Any]]:
        """A command's rows, by its id; where it has none that its caller knows, by the text that its reason has."""
        if command_id:
            return [row for row in self.control_rows if row["command_id"] == command_id]
        return [row for row in self.control_rows if token and token in row["summary"]]

    @cached_property
    def unnamed_kills(self) -> list[dict[str, Any]]:
        """The rows of kills that nobody's id or text names: of signals without either, and those that the desk made itself."""
        known = {call.command_id for call in self.e.calls} | self.signals_by_id.keys()
        tokens = [call.token for call in self.e.calls if call.token]
        kills = [row for row in self.control_rows if row["summary"].startswith("kill ")]
        return [
            row
            for row in kills
            if row["command_id"] not in known and not any(each in row["summary"] for each in tokens)
        ]

    # --- the history ---------------------------------------------------------------------------------------------------

    @cached_property
    def signals(self) -> list[Event]:
        """In the order in which Temporal recorded them."""
        return [event for event in self.e.events if event.kind == "signal"]

    @cached_property
    def signals_by_id(self) -> dict[str, list[Event]]:
        """Those with an id."""
        found: dict[str, list[Event]] = {}
        for event in self.signals:
            if isinstance(event.payload, dict) and isinstance(event.payload.get("command_id"), str):
                found.setdefault(event.payload["command_id"], []).append(event)
        return found

    @cached_property
    def kill_positions(self) -> list[int]:
        """Where in the history a kill arrived, as a signal or as a cancellation.

        One that repeats an id while the desk is killed does nothing, and has no row of its own: what the first one did serves it.
        Nor does one under the id of another command, whose row says so.
        """
        found, known = [], Counter[str]()
        rows = Counter(row["command_id"] for row in self.control_rows if row["summary"].startswith(KILLED_ROWS))
        refused = {row["command_id"] for row in self.control_rows if row["summary"].startswith("kill refused")}
        for n, event in enumerate(self.e.events):
            if event.kind == "cancel_requested" or (event.kind == "signal" and event.name == "kill"):
                command_id: str = (event.payload.get("command_id") or "") if isinstance(event.payload, dict) else ""
                if known[command_id] >= rows[command_id] and (known[command_id] or command_id in refused):
                    continue
                found.append(n)
                known += Counter([command_id] if command_id else [])
        return found

    @cached_property
    def activities(self) -> list[Activity]:
        """In the order of their scheduling."""
        started: dict[tuple[int, int], Event] = {}
        done: dict[tuple[int, int], tuple[int, Event]] = {}
        for n, event in enumerate(self.e.events):
            if event.kind == "started":
                started[event.run, event.scheduled] = event
            elif event.kind in ("completed", "not_done"):
                done[event.run, event.scheduled] = (n, event)
        found = []
        for n, event in enumerate(self.e.events):
            if event.kind == "scheduled":
                end = done.get((event.run, event.number))
                begun = started.get((event.run, event.number))
                found.append(Activity(event, begun, end[1] if end else None, n, end[0] if end else None))
        return found

    def named(self, name: str) -> list[Activity]:
        """The activities of a type."""
        return [activity for activity in self.activities if activity.name == name]

    def task_began(self, activity: Activity) -> float:
        """When the workflow task that scheduled it began: the only time that the workflow knew. Temporal may have been away until
        it took the task."""
        before = self.e.events[: activity.position]
        return next((event.at for event in reversed(before) if event.kind == "task_started"), activity.scheduled.at)

    @cached_property
    def cancel_tries(self) -> list[CancelTry]:
        """Every cancel that was asked of the venue."""
        return [each for activity in self.activities for each in _tries(activity)]

    def unconfirmed(self, position: int, symbols: Iterable[str]) -> list[str]:
        """The cancels of these symbols, on both markets, of which no call that began after this event was confirmed."""
        done = {(t.tool, t.symbol) for t in self.cancel_tries if t.activity.position > position and t.confirmed}
        return [f"{tool} {symbol}" for symbol in symbols for tool in CANCEL_TOOLS if (tool, symbol) not in done]

    def span_of(self, cancel: CancelTry) -> tuple[float, float]:
        """When the call to the venue began at the earliest, and when it had ended at the latest."""
        same = [t for t in self.cancel_tries if t.lane == cancel.lane and not t.goes_on]
        first = [t for t in same if t.activity.position < cancel.activity.position][-1:] if cancel.goes_on else [cancel]
        started = first[0].activity.started if first else None
        return started.at if started else float("-inf"), cancel.activity.ended

    # --- orders --------------------------------------------------------------------------------------------------------

    @cached_property
    def placings(self) -> dict[str, list[Activity]]:
        """The activities that sent an order, by its id."""
        return self._of_orders("place_order")

    @cached_property
    def settlings(self) -> dict[str, list[Activity]]:
        """Those that asked for an order's fate, by its id."""
        return self._of_orders("settle_order")

    def _of_orders(self, name: str) -> dict[str, list[Activity]]:
        found: dict[str, list[Activity]] = {}
        for activity in self.named(name):
            found.setdefault(activity.scheduled.payload["order"]["order_id"], []).append(activity)
        return found

    @cached_property
    def our_ids(self) -> dict[str, str]:
        """Our id of an order by the venue's: the same on paper."""
        if not self.e.live:
            return {order.order_id: order.order_id for order in self.e.orders}
        rows = (row for row in self.e.instructions if row["tool"] == "create_order" and row["venue_order_id"])
        return {row["venue_order_id"]: row["instruction_id"] for row in rows}

    @cached_property
    def taken_orders(self) -> list[VenueOrder]:
        """What the venue accepted, whatever became of it."""
        return [order for order in self.e.orders if order.status in ACCEPTED_BY_THE_VENUE]

    @cached_property
    def risky_orders(self) -> list[VenueOrder]:
        """Those that could increase a position."""
        return [order for order in self.taken_orders if not order.reduce_only]

    def placing_of(self, order: VenueOrder) -> Activity | None:
        """The activity that sent it, where that is known."""
        found = self.placings.get(self.our_ids.get(order.order_id, ""), [])
        return found[0] if found else None

    # --- the account, on paper: whoever writes it holds its lock, so that every moment has one truth ------------------------

    def resting_at(self, at: float) -> set[str]:
        """The orders that rested then."""
        return {order.order_id for order in self.e.orders if (v := order.written_by(at)) and v.status in RESTS}

    def position_at(self, symbol: str, at: float) -> float:
        """Signed, in units of the base asset: what all fills until then come to."""
        mine = [order for order in self.e.orders if (order.symbol, order.market) == (symbol, "futures")]
        return round(sum(order.sign * v.filled for order in mine if (v := order.written_by(at))), 9)

    def positions_between(self, symbol: str, start: float, end: float) -> list[float]:
        """Every position that there was."""
        written = (version.written for order in self.e.orders for version in order.versions)
        return [self.position_at(symbol, at) for at in (start, *(at for at in sorted(written) if start < at <= end))]

    def lot_step(self, symbol: str) -> float:
        """In units of the base asset, as readings say."""
        seen = (each.result["rules"] for each in self.named("observe") if each.result)
        return next(float(rules[symbol]["lot_step"]) for rules in seen if symbol in rules)

    def windows(self, ends: tuple[str, ...], *begins: str) -> Iterator[tuple[Call, float, float]]:
        """For each acknowledged call of `begins`: from its answer until a call of `ends` may have undone it.

        One that began before the answer came may have come after it; then there is no window.
        """
        for call in self.calls(*begins):
            if call.answer in (r.DONE, r.ACCEPTED) and call.end is not None:
                undoing = (c.start for c in self.calls(*ends) if c.start >= call.start and c.answer != r.NOT_RECORDED)
                until = min(undoing, default=float("inf"))
                if until > call.end:
                    yield call, call.end, until


def _touches(note: Note, start: float, end: float, after: float) -> bool:
    return note.at <= end and (note.until or float("inf")) + after >= start


def _tries(activity: Activity) -> list[CancelTry]:
    if activity.name == "cancel":
        return [_try(activity, activity.scheduled.payload, activity.succeeded)]
    if activity.name != "cancel_many":
        return []
    answers = activity.done.payload if activity.succeeded and activity.done else []
    calls = activity.scheduled.payload["cancels"]
    said = [*answers, *[{"done": False}] * (len(calls) - len(answers))]
    return [
        _try(activity, call, answer.get("done", True) and not answer.get("error"))
        for call, answer in zip(calls, said, strict=False)
    ]


def _try(activity: Activity, call: dict[str, Any], confirmed: bool) -> CancelTry:
    return CancelTry(
        activity=activity,
        tool=call["tool"],
        symbol=call["symbol"],
        instruction_ids=tuple(call["instruction_ids"]),
        confirmed=confirmed,
        order_ids=tuple(call.get("order_ids", ())),
        goes_on=bool(call.get("goes_on")),
    )
