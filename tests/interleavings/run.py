"""One run of a coordinator, in memory and without Temporal: the pure functions that the workflow calls, driven by events.

An event holds everything that came from outside, as a workflow's history does. So a crash is a new run of the same events,
and a continue-as-new is a new run of the carried state.
"""

import json
from collections.abc import Coroutine, Generator, Sequence
from datetime import datetime
from types import coroutine
from typing import Any, NamedTuple

from domain.deciding import Choice
from domain.desk import applying, enforcing, latch, requoting
from domain.desk.ahead import ChoiceAhead, DecisionFacts, facts_of
from domain.desk.arrivals import Arrival, Arrivals
from domain.desk.carried import Carried
from domain.desk.cycle import NotDone, run_cycle, takes_risk
from domain.desk.handover import unpack
from domain.desk.payloads import RawPayload, read_command
from domain.desk.recording import Issued, Tick
from domain.desk.states import State
from domain.risk.limits import Limits
from domain.trading.decisions import Decision
from domain.trading.market import LatchReading, Observation
from domain.trading.orders import Order, OrderReport
from domain.trading.proposals import WaitingProposal
from tests.interleavings.lanes import Lanes
from tests.interleavings.ledger import Ledger


class Event(NamedTuple):
    """One input, and when it came. `value`: signals, an answer, or the error in place of one."""

    at: datetime
    kind: str
    lane: str = ""
    value: Any = None


class Request(NamedTuple):
    """What the cycle waits for: a call of `domain.desk.cycle.Surroundings`, with what it was called with."""

    name: str
    argument: Any = None


@coroutine
def _ask(name: str, argument: Any = None) -> Generator[Request, Any, Any]:
    answer = yield Request(name, argument)
    if isinstance(answer, NotDone):
        raise answer
    return answer


class DeskRun:
    """What `workflows/` does with the domain, step by step: `feed` takes an event, `request` and `lanes` say what waits."""

    def __init__(self, carried: str, number: int, ledger: Ledger) -> None:
        self.c = unpack(Carried.model_validate_json(carried))
        self.start, self.number, self.first_ledger = carried, number, ledger
        self.history: list[Event] = []
        self.ledger = ledger.copy()
        self.latch_read = False
        self.cancelled = False
        self.request: Request | None = None
        self.now = self.c.started_at
        self.lanes = Lanes(self.c, self.tick, lambda: self._cycle is None)
        self._cycle: Coroutine[Request, Any, None] | None = None
        self._ahead: ChoiceAhead | None = None
        # What a decision would be made from, where a choice that came with the reading was used in its place.
        self.decided_ahead: tuple[Limits, DecisionFacts] | None = None
        self._made = 0

    def again(self) -> "DeskRun":
        """What another worker makes of the same history."""
        other = DeskRun(self.start, self.number, self.first_ledger)
        other.ledger.checks = False
        for event in self.history:
            other.feed(event)
        other.ledger, other.decided_ahead = self.ledger, None
        return other

    def feed(self, event: Event) -> None:
        """Takes one event. Deterministic: the same events make the same run."""
        self.history.append(event)
        self.now = event.at
        match event.kind:
            case "turn":
                self._turn(event.value)
            case "cancellation":
                self.cancelled = True
                applying.cancelled(self.c, event.value, self.tick())
            case "cycle":
                self._go_on(event.value)
            case "begin":
                self.lanes.begin(event.lane)
            case "end":
                self.lanes.end(event.lane, event.value)
            case "read latch":
                self._read_latch(event.value)
            case _:
                raise ValueError(event.kind)

    def tick(self) -> Tick:
        """Now, and ids that are counted: no two runs make the same."""
        return Tick(self.now, self._new_id)

    moment = tick

    def _new_id(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}_{self.number}_{self._made}"

    # --- signals: workflows.coordinator ------------------------------------------------------------------------------

    def _turn(self, signals: Sequence[tuple[str, Any]]) -> None:
        """Signals of one workflow task, kills first; the first kill in its handler."""
        arrivals = Arrivals()
        for name, payload in signals:
            arrivals.add(name, [RawPayload("json/plain", json.dumps(payload).encode())])
        for arrival in arrivals.first_kill():
            self._take(arrival, self.tick()._replace(issued=Issued()))
        tick = self.tick()._replace(issued=Issued())
        for arrival in arrivals.turn():
            self._take(arrival, tick)

    def _take(self, arrival: Arrival, tick: Tick) -> None:
        if arrival.kind is None:
            applying.unknown_signal(self.c, arrival.name, tick)
            return
        command = read_command(arrival.kind, arrival.payloads, tick.new_id("command"))
        self.ledger.take(self.c, command, tick)

    # --- the cycle: workflows.cycle ----------------------------------------------------------------------------------

    @property
    def cycle_is_idle(self) -> bool:
        """Whether no cycle is under way."""
        return self._cycle is None

    @property
    def may_begin_cycle(self) -> bool:
        """Whether the next cycle may begin: the latch was read, and no restart or hand-over is under way."""
        may_tell = self.latch_read or self.c.state is State.KILLED
        return self._cycle is None and may_tell and self.c.restart is None and not self.c.hand_over

    @property
    def reads_latch(self) -> bool:
        """Whether the run has yet to read the latch. A killed one need not: it says so anyway."""
        return self._cycle is None and not self.latch_read and self.c.state is not State.KILLED

    def _read_latch(self, reading: LatchReading) -> None:
        latch.unread(self.c, reading.error)
        if reading.error is None:
            latch.compare(self.c, reading.latch, latch.known_latch(self.c), self.tick())
        self.latch_read = True

    def _go_on(self, answer: Any) -> None:
        if self._cycle is None:
            self._cycle, answer = run_cycle(self.c, self), None
        try:
            self.request = self._cycle.send(answer)
        except StopIteration:
            self._cycle, self.request = None, None
            self.c.last_cycle_at, self.c.last_cycle_seconds = self.now, 0.0

    async def observe(self) -> Observation:
        """A reading of the venue, perhaps with a choice."""
        ahead = self._ahead = ChoiceAhead(self.c, self.now) if takes_risk(self.c, self) else None
        came = await _ask("observe", (self.c.limits, ahead.facts) if ahead else None)
        return ahead.take(came) if ahead else came.observation

    async def read_again(self) -> Observation | None:
        """A second reading."""
        reading = await _ask("read_again")
        self.c.observation_error = reading.doubt if reading else "no second reading"
        return reading

    async def until_reduced(self) -> None:
        """Until no reduction is under way, or for a while: whichever comes first is an event."""
        if enforcing.reducing(self.c):
            await _ask("until_reduced")

    async def decide(self, seen: Observation, blocked: dict[str, str], waiting: Sequence[WaitingProposal]) -> Choice:
        """What agents and guards make of it."""
        now = self.c.limits, facts_of(self.c, blocked, waiting)
        if self._ahead and (choice := self._ahead.choice(self.c, seen, blocked, waiting, self.now)):
            self.decided_ahead = now
            return choice
        return await _ask("decide", now)

    async def commit(self, row: Decision) -> None:
        """To the decision log."""
        await _ask("commit", row)

    async def until_canceled(self, order: Order) -> None:
        """Until the orders that this one replaces are canceled, or for a while."""
        if requoting.replaced_by(self.c, order) and takes_risk(self.c, self):
            await _ask("until_canceled")

    async def send(self, order: Order) -> OrderReport:
        """To the venue."""
        return await _ask("send", order)
