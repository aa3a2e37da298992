"""Runs a race: measures the window, spreads the trials over it, and has the checker look at each desk."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domain.desk.versions import SCHEMA_VERSION
from tests.chaos import evidence
from tests.chaos.checker import check
from tests.chaos.desk import Desk
from tests.chaos.evidence import Evidence
from tests.chaos.recorder import Recorder
from tests.chaos.rounds import Arena, heal
from tests.chaos.schedule import SYMBOLS, Round
from tests.chaos.timeline import timeline
from tests.races.races import RACES, Race, Trial, signal_of
from tests.races.track import Track
from tests.races.window import Window, measured, moments

# A desk that serves one trial serves one warm-up, too.
WARM_UPS, WARM_UP_DESKS = 8, 4
# So soon after the preparation a trial's first call begins.
LEAD_SECONDS = 0.02
CANCELS = ("cancel", "cancel_many")
# With fewer trials chance may put all of them on one side.
ENOUGH_TRIALS = 20


@dataclass
class Tally:
    """What became of a race."""

    race: str
    window: Window = field(default_factory=lambda: Window(0.0, 0.0))
    kill_first: int = 0
    other_first: int = 0
    # Of no trial's other, or of no kill, there is a trace.
    neither: int = 0
    # Both were under way at the same moment.
    together: int = 0
    slowest_answer: float = 0.0
    # From a kill's arrival at Temporal until its first cancel is begun.
    slowest_cancel: float = 0.0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def trials(self) -> int:
        """All of them."""
        return self.kill_first + self.other_first + self.neither

    def row(self) -> str:
        """A line of the table."""
        window = f"-{1000 * self.window.before:.0f} to {1000 * self.window.after:.0f} ms"
        verdict = f"{len(self.wrong)} WRONG" if self.wrong else "held"
        counts = f"{self.trials} | {self.kill_first} | {self.other_first} | {self.neither} | {self.together}"
        slowest = f"{self.slowest_answer:.2f} s | {self.slowest_cancel:.2f} s"
        return f"| {self.race} | {window} | {counts} | {slowest} | {self.seconds:.0f} s | {verdict} |"


Tell = Callable[[Sequence[Tally]], None]
HEAD = (
    "| kill and | window | trials | kill first | other first | neither | under way together | slowest answer | slowest cancel "
    "| took | |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


async def run_races(
    place: Arena, races: Sequence[Race], trials: int, out: Path, desks: int = 1, tell: Tell = lambda tallies: None
) -> list[Tally]:
    """All trials of these races, on so many desks at once. `tell` hears what is known after each desk.

    A trial is two seconds of waiting for the desk that it begins with, and half a second of race. What the desks of several
    races do meanwhile is to each of them a machine that is busy with something else, in the warm-ups as well.
    """
    tallies = [Tally(race.name) for race in races]
    limit = asyncio.Semaphore(desks)
    await asyncio.gather(*(_warm_up(place, tally, limit) for tally in tallies))
    # The first desk of each race comes before the second one of any: whoever breaks off has trials of all.
    heats = sorted((heat for tally in tallies for heat in _heats(tally, trials)), key=lambda heat: heat.number)
    await asyncio.gather(*(_limited(place, heat, limit, out, lambda: tell(tallies)) for heat in heats))
    for tally in tallies:
        if trials >= ENOUGH_TRIALS and not (tally.kill_first and tally.other_first):
            tally.wrong.append("no race took place: every trial went the same way")
    return tallies


@dataclass(frozen=True)
class Heat:
    """The trials that share a desk, the nth one of their race."""

    tally: Tally
    number: int
    offsets: list[float]


def _heats(tally: Tally, trials: int) -> list[Heat]:
    each, offsets = RACES[tally.race].trials, moments(tally.window, trials)
    return [Heat(tally, n // each, offsets[n : n + each]) for n in range(0, len(offsets), each)]


async def _warm_up(place: Arena, tally: Tally, limit: asyncio.Semaphore) -> None:
    async with limit:
        tally.window = await _measure(place, RACES[tally.race])


async def _limited(place: Arena, heat: Heat, limit: asyncio.Semaphore, out: Path, tell: Callable[[], None]) -> None:
    """One desk that breaks leaves the others as they are."""
    async with limit:
        began = time.monotonic()
        try:
            await _heat(place, RACES[heat.tally.race], heat.number, heat.offsets, heat.tally, out)
        except Exception as error:
            heat.tally.wrong.append(f"desk {heat.number} broke: {type(error).__name__}: {error}")
        heat.tally.seconds += time.monotonic() - began
        tell()


# --- the window --------------------------------------------------------------------------------------------------------


async def _measure(place: Arena, race: Race) -> Window:
    """Each alone, one after the other, from its request to its effect."""
    kills: list[float] = []
    others: list[float] = []
    alone = race.trials == 1
    for desk in range(WARM_UP_DESKS if alone else 1):
        track = await _opened(place, race, f"warm-up-{desk}")
        try:
            for track.number in range(1 if alone else WARM_UPS):
                await race.prepare(track)
                kills.append(await _timed_kill(track))
                await race.prepare(track)
                others.append(await _timed(race, track))
        finally:
            track.recorder.close()
            await track.close()
    return measured(kills, others)


async def _timed(race: Race, track: Track) -> float:
    began = time.monotonic()
    assert await race.begin(track), f"{race.name} was not carried out"
    if race.effect:
        await race.effect(track)
    return time.monotonic() - began


async def _timed_kill(track: Track) -> float:
    began = time.monotonic()
    await track.kill()
    return time.monotonic() - began


# --- the trials --------------------------------------------------------------------------------------------------------


async def _heat(place: Arena, race: Race, number: int, offsets: list[float], tally: Tally, out: Path) -> None:
    """The trials of one desk, and what its record says of them."""
    track = await _opened(place, race, str(number))
    found = Evidence(number, False, race.cycle_seconds, SYMBOLS, track.recorder.calls, track.recorder.notes)
    raced: list[Trial] = []
    alive: list[tuple[Trial, str]] = []
    try:
        for track.number, offset in enumerate(offsets):
            trial = await _trial(race, track, offset)
            raced.append(trial)
            if (state := (await track.status())["state"]) != "killed":
                alive.append((trial, f"trial {trial.number}: {state} after a kill that came at {offset:.3f} s"))
        await heal(track.desk, found)
        await evidence.collect(track.desk, found)
    finally:
        track.recorder.close()
        await track.close()
    tally.wrong += [f"desk {number}, {told}" for trial, told in alive if not race.may_run(trial, found.events)]
    _count(race, raced, found, tally)
    _check(f"{race.name}-{number}", found, tally, out)


async def _trial(race: Race, track: Track, offset: float) -> Trial:
    await race.prepare(track)
    start = time.monotonic() + LEAD_SECONDS

    async def other() -> tuple[float, bool]:
        await _until(start + max(0.0, -offset))
        return time.time(), await race.begin(track)

    async def kill() -> None:
        await _until(start + max(0.0, offset))
        await track.kill()

    (began, carried_out), ended, _ = await asyncio.gather(
        running := asyncio.create_task(other()), _end(running), kill()
    )
    return Trial(track.number, began, ended, carried_out)


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


async def _end(task: asyncio.Task[tuple[float, bool]]) -> float:
    await asyncio.wait([task])
    return time.time()


def _count(race: Race, raced: list[Trial], found: Evidence, tally: Tally) -> None:
    kills = {call.key: call for call in found.calls if call.kind == "kill" and call.client == "race"}
    for trial in raced:
        first, kill = race.first(trial, found.events), kills[f"kill-{trial.number}"]
        tally.kill_first += first is True
        tally.other_first += first is False
        tally.neither += first is None
        end = kill.end or kill.start
        tally.together += kill.start < trial.ended and trial.began < end
        tally.slowest_answer = max(tally.slowest_answer, end - kill.start)
        tally.slowest_cancel = max(tally.slowest_cancel, _seconds_to_a_cancel(trial, found))
        if not kill.acknowledged:
            tally.wrong.append(f"trial {trial.number}: the kill was told {kill.answer} {kill.status} {kill.told}")


def _seconds_to_a_cancel(trial: Trial, found: Evidence) -> float:
    kill = signal_of(found.events, f"kill-{trial.number}")
    if kill is None:
        return 0.0
    begun = (event.at for event in found.events[kill:] if event.kind == "scheduled" and event.name in CANCELS)
    return next(begun, found.events[kill].at) - found.events[kill].at


def _check(name: str, found: Evidence, tally: Tally, out: Path) -> None:
    violations = check(found)
    tally.wrong += [f"{each.invariant} {each.rule}: {each.text}" for each in violations]
    if violations:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.txt").write_text(timeline(found, violations, around=None))
        evidence.save(found, out / f"{name}.json")


async def _opened(place: Arena, race: Race, name: str) -> Track:
    """A desk that nothing goes wrong at but what the race does to it."""
    schema = race.schema or SCHEMA_VERSION
    plan = Round(seed=1, live=False, seconds=0.0, cycle_seconds=race.cycle_seconds, steps=(), faults=(), schema=schema)
    folder = place.folder / f"{race.name}-{name}"
    folder.mkdir(parents=True)
    recorder = Recorder(folder / "record.ndjson")
    desk = Desk(plan, place.zygote, place.temporal, place.postgres, folder, f"race-{race.name}-{name}")
    # Workers of one desk end while another one races.
    desk.queue = desk.name
    track = Track(desk, recorder)
    await track.open()
    return track
