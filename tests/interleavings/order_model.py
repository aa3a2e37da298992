"""A small model of one order: its decision, its permission, its send and its fate, between workflow, database and venue.

Two commands, one crash and one lost message come at any moment. `wrong` names what a mutated model does otherwise.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tests.interleavings.explore import Model, ModelStep

COMMANDS = ("kill", "pause", "resume")
# What is wrong with a mutated model.
SENT_BEFORE_COMMIT = "the order goes out before its decision is committed"
NEVER_OLD = "a permission does not grow old"
QUERY_FIRST = "the coordinator answers before it has taken a kill that waits"
SENT_AGAIN = "an order whose fate is unknown is sent again"
VERIFIED_EARLY = "a kill is verified while an order's fate is unknown"
WRONGS = {SENT_BEFORE_COMMIT: "I5", NEVER_OLD: "I3", QUERY_FIRST: "I3", SENT_AGAIN: "I4", VERIFIED_EARLY: "I6"}


class OrderWorld(NamedTuple):
    """Everything, in order: the workflow, what is under way, database and venue, and what may still happen.

    `permit`: asked before or after a kill was acknowledged; `old`: more than half a second ago. `sent_late` and
    `sent_unwritten` are what must never be.
    """

    state: str = "running"
    inbox: tuple[str, ...] = ()
    order: str = "decided"
    fresh_cancel: bool = False
    verified: bool = False
    commit: str = ""
    place: str = ""
    permit: str = ""
    old: bool = False
    cancel: str = ""
    written: bool = False
    latched: bool = False
    venue: str = ""
    sends: int = 0
    acknowledged: bool = False
    sent_late: bool = False
    sent_unwritten: bool = False
    commands: int = 2
    crashes: int = 1
    losses: int = 1


W = OrderWorld
Moves = Callable[[W], Iterable[W]]


def order_model(wrong: str = "") -> Model[W]:
    """The model, or a mutation of it."""
    return Model(
        starts={"a desk has decided on an order": W()},
        steps=_steps(wrong),
        holds={
            "I3: no order goes out after an acknowledged kill": lambda w: not w.sent_late,
            "I4: an order is sent once": lambda w: w.sends <= 1,
            "I5: no order goes out before its decision is committed": lambda w: not w.sent_unwritten,
            "I6: a verified kill leaves nothing": lambda w: not w.verified or w.venue in ("", "canceled"),
        },
        rests={
            "I1: what was acknowledged has its effect": lambda w: not w.acknowledged or w.state == "killed",
            "I2: a kill stands in both places": lambda w: w.state != "killed" or w.latched,
            "I3: a kill comes to an end": lambda w: w.state != "killed" or w.verified,
            "I4: every order has a fate": lambda w: w.order == "settled",
        },
    )


def _steps(wrong: str) -> tuple[ModelStep[W], ...]:
    def step(name: str, moves: Moves, *code: str) -> ModelStep[W]:
        return ModelStep(name, code, moves, is_due=bool(code))

    return (
        ModelStep("a client's command is recorded", ("workflows.gateway:DeskGateway.signal",), _recorded, is_due=False),
        step("the coordinator takes its signals", _turn, "workflows.coordinator:Coordinator._take_turn",
             "domain.desk.arrivals:Arrivals.turn", "domain.desk.applying:apply", "domain.desk.killing:kill",
             "workflows.run:CoordinatorRun.stop_order"),
        step("the cycle asks for its decision to be written", lambda w: _asks_commit(w, wrong),
             "domain.desk.outbox:order_prepared", "domain.desk.cycle:_commit"),
        step("the decision is written", _commits, "activities.record:RecordActivities.record",
             "storage.decisions:insert_decisions"),
        step("the cycle hears that it is written", _hears_commit, "domain.desk.cycle:_send",
             "domain.desk.cycle:_why_not_sent", "workflows.run:CoordinatorRun.send_order"),
        step("a worker reads the latch for the order", _reads_latch, "activities.act:ActActivities._latch_refusal",
             "storage.desks:read_desk"),
        step("a worker asks the coordinator for the order", lambda w: _asks(w, wrong),
             "activities.act:ActActivities._coordinator_refusal", "workflows.coordinator:Coordinator.on_signal",
             "workflows.coordinator:Coordinator.status"),
        step("half a second passes", _grows_old),
        step("a worker sends the order", lambda w: _sends(w, wrong), "activities.clearance:FreshClearance.check",
             "activities.clearance:FreshClearance.send", "activities.act:ActActivities._send"),
        step("the coordinator hears of the order", lambda w: _hears_fate(w, wrong), "domain.desk.ordering:take_report",
             "domain.desk.outbox:order_reported", "domain.desk.carried:PendingOrder.move"),
        ModelStep("a late order comes to the venue", (), _arrives),
        step("the venue is asked for the order's fate", _settles, "workflows.outbox:OutboxTask._settle_lane",
             "activities.act:ActActivities.settle_order", "activities.venues.arriving:none_can_arrive"),
        step("a cancel begins", _begins_cancel, "workflows.lanes:CancelLanes.run", "domain.desk.outbox:cancels_begun"),
        step("the venue cancels", _cancels, "activities.act:ActActivities.cancel"),
        step("the cancel is confirmed", lambda w: [w._replace(cancel="")] if w.cancel == "landed" else [],
             "domain.desk.outbox:cancels_confirmed", "domain.desk.outbox:note_quiet"),
        step("the latch is written", _latches, "workflows.outbox:OutboxTask._latch_lane", "domain.desk.outbox:desk_row",
             "storage.desks:write_desk", "domain.desk.latch:row_answered"),
        step("the kill is verified", lambda w: _verifies(w, wrong), "domain.desk.killing:verifying",
             "domain.desk.killing:verify", "workflows.outbox:OutboxTask._verify_lane"),
        step("a message is lost", lambda w: _lost(w) if w.losses else ()),
        step("the worker dies", _dies),
    )  # fmt: skip


# --- commands -------------------------------------------------------------------------------------------------------


def _recorded(w: W) -> Iterator[W]:
    """A kill is acknowledged as soon as Temporal has it: `temporal workflow signal` says so."""
    for command in COMMANDS if w.commands else ():
        acknowledged = w.acknowledged or command == "kill"
        yield w._replace(inbox=(*w.inbox, command), commands=w.commands - 1, acknowledged=acknowledged)


def _turn(w: W) -> list[W]:
    return [_taken(w)] if w.inbox else []


def _taken(w: W) -> W:
    """Kills first. What no worker has begun is given up."""
    for command in sorted(w.inbox, key=lambda name: name != "kill"):
        if command == "kill":
            w = w._replace(state="killed", fresh_cancel=True, verified=False)
        elif w.state != "killed":
            w = w._replace(state="paused" if command == "pause" else "running")
    stopped = w.state != "running" and w.place == "scheduled"
    return w._replace(inbox=(), place="not sent" if stopped else w.place)


# --- the order ------------------------------------------------------------------------------------------------------


def _asks_commit(w: W, wrong: str) -> list[W]:
    if w.order != "decided" or w.commit or w.written:
        return []
    if wrong == SENT_BEFORE_COMMIT:
        return [w._replace(commit="asked", order="sending", place="scheduled")]
    return [w._replace(commit="asked")]


def _commits(w: W) -> list[W]:
    """A row that stands already is left as it is."""
    return [w._replace(commit="done", written=True)] if w.commit == "asked" else []


def _hears_commit(w: W) -> list[W]:
    if w.commit != "done":
        return []
    if w.order != "decided":
        return [w._replace(commit="")]
    if w.state == "running":
        return [w._replace(commit="", order="sending", place="scheduled")]
    return [w._replace(commit="", order="settled")]


def _reads_latch(w: W) -> list[W]:
    if w.place != "scheduled":
        return []
    return [w._replace(place="not sent" if w.latched else "latch read")]


def _asks(w: W, wrong: str) -> list[W]:
    """A query is answered after the signals that were recorded before it."""
    if w.place != "latch read":
        return []
    seen = w if wrong == QUERY_FIRST else _taken(w)
    if seen.state != "running":
        return [seen._replace(place="not sent")]
    return [seen._replace(place="permitted", permit="after" if w.acknowledged else "before", old=False)]


def _grows_old(w: W) -> list[W]:
    return [w._replace(old=True)] if w.place == "permitted" and not w.old else []


def _sends(w: W, wrong: str) -> list[W]:
    """What had a permission from before a kill may go out for half a second: that is what the design admits."""
    if w.place != "permitted":
        return []
    if w.old and wrong != NEVER_OLD:
        return [w._replace(place="latch read", permit="", old=False)]
    return [_sent(w, "rests")._replace(place="open")]


def _sent(w: W, venue: str) -> W:
    late = w.acknowledged and (w.old or w.permit == "after")
    return w._replace(
        venue=venue,
        sends=w.sends + 1,
        sent_late=w.sent_late or late,
        sent_unwritten=w.sent_unwritten or not w.written,
        permit="",
        old=False,
    )


def _hears_fate(w: W, wrong: str) -> list[W]:
    """An order that reached the venue is cancelled again, if a kill came meanwhile."""
    if w.order != "sending" or w.place not in ("open", "not sent", "unknown"):
        return []
    if w.place == "unknown":
        again = (
            {"place": "scheduled"}
            if wrong == SENT_AGAIN and w.state == "running"
            else {"place": "", "order": "unknown"}
        )
        return [w._replace(**again)]  # type: ignore[arg-type]
    return [_settled(w, reached=w.place == "open")]


def _settled(w: W, reached: bool) -> W:
    return w._replace(place="", order="settled", fresh_cancel=w.fresh_cancel or (reached and w.state == "killed"))


def _arrives(w: W) -> list[W]:
    return [w._replace(venue="rests")] if w.venue == "on its way" else []


def _settles(w: W) -> list[W]:
    """As long as it may still arrive, nobody says that it never will."""
    if w.order != "unknown" or w.venue == "on its way":
        return []
    return [_settled(w, reached=w.venue != "")]


# --- after a kill ---------------------------------------------------------------------------------------------------


def _begins_cancel(w: W) -> list[W]:
    return [w._replace(fresh_cancel=False, cancel="asked")] if w.fresh_cancel and not w.cancel else []


def _cancels(w: W) -> list[W]:
    if w.cancel != "asked":
        return []
    return [w._replace(cancel="landed", venue="canceled" if w.venue == "rests" else w.venue)]


def _latches(w: W) -> list[W]:
    return [w._replace(latched=True)] if w.state == "killed" and not w.latched else []


def _verifies(w: W, wrong: str) -> list[W]:
    is_quiet = not w.fresh_cancel and not w.cancel and (w.order == "settled" or wrong == VERIFIED_EARLY)
    if w.state != "killed" or w.verified or not is_quiet:
        return []
    return [w._replace(fresh_cancel=True) if w.venue == "rests" else w._replace(verified=True)]


# --- faults ---------------------------------------------------------------------------------------------------------


def _lost(w: W) -> Iterator[W]:
    """A question that never arrives, or an answer that does not: either is repeated, but never an order."""
    left = w._replace(losses=w.losses - 1)
    if w.commit:
        yield left._replace(commit="asked")
        # It stays away: the order is not sent, and its row follows by the records' own queue.
        yield left._replace(commit="", order="settled" if w.order == "decided" else w.order)
    if w.cancel:
        yield left._replace(cancel="", fresh_cancel=True)
    if w.place == "permitted" and not w.old:
        yield _sent(left, "")._replace(place="unknown")
        yield _sent(left, "on its way")._replace(place="unknown")
    if w.place == "open":
        yield left._replace(place="unknown")


def _dies(w: W) -> list[W]:
    """Another worker repeats what may be repeated. Of an order that had begun, nobody knows."""
    if not w.crashes:
        return []
    begun = w.place in ("latch read", "permitted", "open")
    cancel = {"cancel": "", "fresh_cancel": True} if w.cancel else {}
    place = {"place": "unknown", "permit": "", "old": False} if begun else {}
    return [w._replace(crashes=0, commit="asked" if w.commit else "", **cancel, **place)]  # type: ignore[arg-type]
