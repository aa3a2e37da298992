"""A desk and its world, step by step: whatever may happen next is a step, any order of them is a program.

A step is a list of JSON, so that a program can be kept in a file: `["turn", [["kill", {}]]]`, `["cycle", "flat"]`,
`["begin", "records"]`, `["end", "records", "lost"]`, `["crash"]`, `["continue"]`. One that cannot happen now does nothing.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from domain.desk.ahead import DecisionFacts, ObservedAndChosen
from domain.desk.carried import PendingOrder, PendingRestart
from domain.desk.cycle import NotDone
from domain.desk.handover import pack
from domain.desk.outbox import DeskRow, RecordBatch
from domain.desk.versions import SCHEMA_VERSION
from domain.risk.limits import Limits
from domain.trading.market import LatchReading, LatchRow
from domain.trading.orders import Order
from storage.desks import ClearedKill
from tests.domain.builders import ETH, NOW, a_desk
from tests.interleavings import answers
from tests.interleavings.answers import AWAY
from tests.interleavings.database import FakeDatabase
from tests.interleavings.ledger import Ledger
from tests.interleavings.run import DeskRun, Event
from tests.interleavings.watch import Watch

Step = Sequence[Any]
STEP_SECONDS = 0.05
SEEN = [*answers.READINGS, "away"]
# What the cycle may be answered, by what it asks.
CYCLE_ANSWERS: dict[str, Sequence[str]] = {
    "observe": [*SEEN, *answers.AHEAD],
    "read_again": SEEN,
    "until_reduced": ["done"],
    "decide": answers.CHOICES,
    "commit": answers.WRITES,
    "until_canceled": ["done"],
    "send": answers.FATES,
}
LANE_ANSWERS: dict[str, Sequence[str]] = {
    "cancel": ["done", "away"],
    "settle": answers.SETTLED,
    "records": answers.WRITES,
    "latch": answers.WRITES,
    "restart": answers.WRITES,
    "flatten": SEEN,
    "verify": SEEN,
}


def _told(asked: tuple[Limits, DecisionFacts]) -> str:
    return "\n".join(part.model_dump_json() for part in asked)


class Rehearsal:
    """`step` makes one step and checks what must hold after it."""

    def __init__(self, **terms: Any) -> None:
        facts = {"symbols": ["BTCUSDT", ETH], "database_id": "db"} | terms
        self.run = DeskRun(a_desk(**facts).model_dump_json(), 1, Ledger())
        self.databases = {"db": FakeDatabase("db")}
        self.now: datetime = NOW
        self.written: list[DeskRow] = []
        self.watch = Watch()
        self._latch_before: LatchRow | None = None
        self._asked_ahead = ""

    @property
    def database(self) -> FakeDatabase:
        """The one that is the desk's now."""
        return self._named(self.run.c.database_id)

    def _named(self, database_id: str | None) -> FakeDatabase:
        name = database_id or "db"
        return self.databases.setdefault(name, FakeDatabase(name))

    def step(self, step: Step) -> bool:
        """Makes the step, if it can happen now, and checks what must hold. Whether it happened."""
        self.now += timedelta(seconds=STEP_SECONDS)
        self.watch.before(self.run)
        kind, *rest = step
        made = bool(getattr(self, f"_{kind.replace(' ', '_')}")(*rest))
        if made:
            self.watch.after(self.run, step, self.databases.values())
        return made

    # --- steps -------------------------------------------------------------------------------------------------------

    def _turn(self, signals: Sequence[Sequence[Any]]) -> bool:
        return self._feed("turn", value=[(name, payload) for name, payload in signals])

    def _cancel(self, reason: str) -> bool:
        return not self.run.cancelled and self._feed("cancellation", value=reason)

    def _wait(self, seconds: float) -> bool:
        self.now += timedelta(seconds=seconds)
        return True

    def _read_latch(self, word: str) -> bool:
        found = LatchReading(error="away") if word == "away" else LatchReading(latch=self.database.latch)
        return self.run.reads_latch and self._feed("read latch", value=found)

    def _cycle(self, word: str) -> bool:
        asked = self.run.request
        if asked is None:
            return self.run.may_begin_cycle and self._feed("cycle")
        if word not in CYCLE_ANSWERS[asked.name]:
            return False
        made = self._feed("cycle", value=self._answer(asked.name, asked.argument, word))
        if used := self.run.decided_ahead:
            assert _told(used) == self._asked_ahead, "a choice was used that was made from something else"
            self.run.decided_ahead = None
        return made

    def _begin(self, lane: str) -> bool:
        return lane in self.run.lanes.due() and self._feed("begin", lane)

    def _end(self, lane: str, word: str) -> bool:
        if lane not in self.run.lanes.under_way or word not in self.lane_answers(lane):
            return False
        return self._feed("end", lane, self._lane_answer(lane, word))

    def _crash(self) -> bool:
        again = self.run.again()
        self.watch.is_the_same(self.run, again)
        self.run = again
        return True

    def _continue(self) -> bool:
        """The next run, by what is carried over. Only when both tasks stand still."""
        c = self.run.c
        if not self.run.cycle_is_idle or self.run.lanes.under_way:
            return False
        c.hand_over, c.schema_version = False, SCHEMA_VERSION
        carried = pack(c, self.run.tick(), "run").model_dump_json()
        self.run = DeskRun(carried, self.run.number + 1, self.run.ledger)
        self.watch.is_carried(c, self.run.c)
        return True

    def _late(self, number: int) -> bool:
        """A write of the desk's row that a worker began long ago arrives now."""
        if self.written:
            self.database.write_desk(self.written[number % len(self.written)])
        return bool(self.written)

    def _feed(self, kind: str, lane: str = "", value: Any = None) -> bool:
        self.run.feed(Event(self.now, kind, lane, value))
        asked = self.run.request
        if asked and asked.name in ("observe", "read_again"):
            self._latch_before = self.database.latch
        if asked and asked.name == "observe" and (kind, lane) == ("cycle", ""):
            # As text: what it was asked with changes afterwards.
            self._asked_ahead = _told(asked.argument) if asked.argument else ""
        return True

    # --- what the world answers --------------------------------------------------------------------------------------

    def _answer(self, name: str, argument: Any, word: str) -> Any:
        match name:
            case "observe":
                return self._seen_ahead(argument, *word.split(" with "))
            case "read_again":
                return None if word == "away" else self._reading(word)
            case "decide":
                return answers.choice(word, *argument)
            case "commit":
                return self._write(word, self.database.record, RecordBatch(decisions=[argument]))
            case "send":
                return answers.report(word, argument)
        return None

    def lane_answers(self, lane: str) -> Sequence[str]:
        """What a lane that is under way may be answered."""
        kind = lane.split("/", maxsplit=1)[0]
        if kind == "deleverage":
            is_sent = isinstance(self.run.lanes.under_way[lane], PendingOrder)
            return answers.FATES if is_sent else ["planned", "closed", "away"]
        return LANE_ANSWERS[kind]

    def _lane_answer(self, lane: str, word: str) -> Any:
        asked = self.run.lanes.under_way[lane]
        match lane.split("/", maxsplit=1)[0]:
            case "cancel":
                answer: Any = AWAY if word == "away" else None
            case "settle":
                answer = answers.report(word, asked.order)
            case "deleverage":
                answer = self._deleverage_answer(asked, word)
            case "records" | "latch" | "restart" as kind:
                answer = self._write(word, getattr(self, f"_write_{kind}"), asked)
            case _:
                answer = None if word == "away" else self._reading(word)
        return answer

    def _write_records(self, asked: Any) -> None:
        batch, database_id = asked
        self._named(database_id).record(batch)

    def _write_latch(self, asked: Any) -> LatchRow:
        row, database_id = asked
        self.written.append(row)
        return self._named(database_id).write_desk(row)

    def _write_restart(self, restart: PendingRestart) -> bool:
        cleared = ClearedKill(restart.kill_number, restart.kill_id or None)
        return self.database.clear_latch(cleared, restart.row)

    def _deleverage_answer(self, asked: Any, word: str) -> Any:
        if isinstance(asked, PendingOrder):
            order: Order = asked.order
            return answers.report(word, order)
        return answers.reduction(word, asked, self.run.c.observation)

    def _reading(self, word: str) -> Any:
        return answers.reading(word, self.run.c, self.now, (self.database.latch, self._latch_before))

    def _seen_ahead(self, asked: Any, word: str, chosen: str = "") -> Any:
        seen = self._reading(word)
        if isinstance(seen, NotDone):
            return seen
        return ObservedAndChosen(seen, answers.choice_ahead(chosen, seen, *asked) if asked else None)

    def _write(self, word: str, work: Callable[[Any], Any], asked: Any) -> Any:
        """A write that is done, or is done although its answer is lost, or is not."""
        answer = None if word == "away" else work(asked)
        return answer if word == "done" else AWAY

    # --- what may happen next ----------------------------------------------------------------------------------------

    def cycle_words(self) -> Sequence[str]:
        """What the cycle may be answered now, or `begin`; nothing where it cannot go on."""
        if self.run.request:
            return CYCLE_ANSWERS[self.run.request.name]
        return ["begin"] if self.run.may_begin_cycle else []

    def settle(self) -> None:
        """Everything is answered well from now on, until nothing is left to do."""
        for _ in range(2_000):
            if not self._settled_a_step():
                break
        else:
            raise AssertionError(f"it never comes to rest: {self.run.lanes.due()}, {self.run.request}")
        self.watch.at_rest(self.run, self.databases.values())

    def _settled_a_step(self) -> bool:
        run = self.run
        good = {"observe": "flat", "read_again": "flat", "decide": "nothing", "send": "filled"}
        if run.request:
            return self.step(["cycle", good.get(run.request.name, "done")])
        for lane in [*run.lanes.under_way]:
            words = self.lane_answers(lane)
            return self.step(["end", lane, next(w for w in ("done", "filled", "planned", "flat") if w in words)])
        if run.reads_latch:
            return self.step(["read latch", "read"])
        if run.c.hand_over and not run.lanes.due():
            return self.step(["continue"])
        return any(self.step(["begin", lane]) for lane in run.lanes.due())
