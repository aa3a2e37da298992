"""The parts of the world around a coordinator in its tests, each with switches for its faults and notes of what came to it.

A test names the parts that are unusual: `World(Venue(position=Decimal(1)), Agents(propose=True))`. An activity waits at a gate
that is there, once it has set the event beside it.
"""

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal

from temporalio.exceptions import ApplicationError

from activities import calls
from domain.desk.ahead import DecisionFacts
from domain.health.books_seen import BooksSeen
from domain.health.clocks import ClockReading
from domain.trading.agents import AgentHealth
from domain.trading.decisions import Decision
from domain.trading.instructions import InstructionRow
from domain.trading.market import Known, LatchRow, OpenOrder
from domain.trading.orders import Fate


@dataclass
class Database:
    """The decision log and the latch."""

    up: bool = True
    hangs: bool = False
    latch: LatchRow | None = None
    latch_gate: asyncio.Event | None = None
    clear_gate: asyncio.Event | None = None
    commit_gate: asyncio.Event | None = None
    commit_begun: asyncio.Event = field(default_factory=asyncio.Event)
    decisions: dict[str, Decision] = field(default_factory=dict)
    instructions: dict[str, InstructionRow] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        return self.up and not self.hangs

    async def reached(self) -> None:
        if self.hangs:
            await asyncio.sleep(600)
        if not self.up:
            raise ApplicationError("the database cannot be reached", type="DatabaseUnavailable")


@dataclass
class Venue:
    """The account at the venue."""

    up: bool = True
    position: Decimal = Decimal(0)
    equity: Decimal = Decimal(10_000)
    open_orders: list[OpenOrder] = field(default_factory=list)

    def reached(self) -> None:
        if not self.up:
            raise ApplicationError("the venue does not answer", type="VenueUnavailable")


@dataclass
class Readings:
    """Readings of the account: the first of each cycle, and those that only read again."""

    # Cancels go out all the same.
    possible: bool = True
    # Why readings are no facts.
    doubts: list[str] = field(default_factory=list)
    second_doubts: list[str] = field(default_factory=list)
    # What readings that only read again show, where it differs.
    second_equity: Decimal | None = None
    # Symbols that the venue knows beside the desk's own.
    also_listed: list[str] = field(default_factory=list)
    clocks: list[ClockReading] = field(default_factory=list)
    books: BooksSeen | None = None
    # They wait here once they have seen the venue.
    gate: asyncio.Event | None = None
    again_gate: asyncio.Event | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    count: int = 0
    again: int = 0
    known: list[Known] = field(default_factory=list)
    # The symbols of the newest reading.
    symbols: set[str] = field(default_factory=set)


@dataclass
class Agents:
    """What agents propose, and how they fare."""

    propose: bool = False
    # One of them fails, and the desk decides without it.
    fail: bool = False
    # The activity itself comes to a decision.
    decide: bool = True
    # They are asked beside the reading; otherwise as by a worker of an older release.
    ahead: bool = True
    gate: asyncio.Event | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    health: list[dict[str, AgentHealth]] = field(default_factory=list)
    # What each reading had for a decision; how many decisions there were, and how many of them beside a reading.
    asked_ahead: list[DecisionFacts | None] = field(default_factory=list)
    asked: int = 0
    chosen_ahead: int = 0


@dataclass
class Orders:
    """Orders that are sent, and reductions that are planned."""

    fate: Fate = Fate.FILLED
    # What the venue says later of one whose fate was not known.
    settled_as: Fate = Fate.UNKNOWN
    fill_at_most: Decimal | None = None
    fill_half: bool = False
    # Of the worker; None: the one that each order is for.
    scope: calls.Scope | None = None
    gate: asyncio.Event | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    plan_gate: asyncio.Event | None = None
    plan_begun: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[str] = field(default_factory=list)


@dataclass
class Cancels:
    """Cancels of all orders of a symbol."""

    seconds: float = 0.0
    # Symbols whose cancels fail.
    stuck: set[str] = field(default_factory=set)
    # Symbols whose cancels take longer than the others of the same activity.
    slow: set[str] = field(default_factory=set)
    # So many find other calls before them.
    busy: int = 0
    done: list[str] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    # How many each activity had.
    together: list[int] = field(default_factory=list)


@dataclass
class Server:
    """What Temporal says of the search attributes that it knows."""

    tells: bool = True
    gate: asyncio.Event | None = None
    looks: int = 0


Part = Database | Venue | Readings | Agents | Orders | Cancels | Server
