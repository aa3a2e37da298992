"""How a reading changes the carried state: what it shows, its warnings, and the latch."""

from domain.desk import growth, latch, resting
from domain.desk.carried import Carried
from domain.desk.killing import note_symbols
from domain.desk.recording import Tick
from domain.desk.warnings import Topic, unwarn, warn
from domain.health import books_seen, clocks
from domain.health.books_seen import BooksSeen
from domain.trading.market import Observation

MAX_CARRIED_ORDERS = 100


def take_observation(c: Carried, observation: Observation, known: int, tick: Tick) -> None:
    """Stores a reading, notes its symbols, and compares the latch: killed in either place means killed.

    `known` is what `latch.known_latch` returned before the reading began: a reading that overlapped a write of the latch
    proves nothing about it.
    """
    resting.update_from(c, observation)
    if len(observation.open_orders) > MAX_CARRIED_ORDERS:
        few = {"open_orders": observation.open_orders[:MAX_CARRIED_ORDERS]}
        observation = observation.model_copy(update=few)
    observation = _warn_of_clocks(c, observation)
    c.observation, c.observation_error = observation, None
    c.filled = {}
    growth.compare(c, observation, tick)
    note_symbols(c, observation)
    unwarn(c, Topic.DISK)
    for disk in reversed(observation.low_disks):
        warn(c, Topic.DISK, disk.text, disk.folder)
    _warn_of_books(c, observation.books)
    if observation.latch_error is None:
        latch.compare(c, observation.latch, known, tick)


def _warn_of_books(c: Carried, found: BooksSeen | None) -> None:
    """Updates the warnings about the books. They stay if this reading could not check the books."""
    if found is None:
        return
    for topic, text in books_seen.warnings_of(found).items():
        unwarn(c, Topic(topic))
        if text:
            warn(c, Topic(topic), text)


def _warn_of_clocks(c: Carried, observation: Observation) -> Observation:
    """Updates the warnings about clocks. Each stays until a reading of the same clock agrees again."""
    before = c.observation.clocks if c.observation else []
    if not before and not observation.clocks:
        return observation
    known = clocks.newest(before, observation.clocks)
    for reading in known:
        unwarn(c, Topic.CLOCK, reading.clock.value)
        if reading.differs:
            warn(c, Topic.CLOCK, reading.text, reading.clock.value)
    return observation.model_copy(update={"clocks": known})
