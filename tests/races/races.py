"""What a kill races with: how the desk stands before, how the other begins, when it has taken effect, and who came first."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.chaos.evidence import Event
from tests.chaos.faults import a_signal
from tests.chaos.schedule import LAST_SCHEMA, SYMBOLS, WORKERS
from tests.races.track import SYMBOL, Track

Act = Callable[[Track], Awaitable[None]]
# As many as make a run too long (tests/chaos/servers.py: SUGGEST_AFTER).
SIGNALS_AT_ONCE, MOST_SIGNALS = 5, 200
CLOCK_SECONDS = 0.002


@dataclass(frozen=True)
class Trial:
    """One trial as the harness saw it: when the other began and ended, what came of it, and after which event it began."""

    number: int
    began: float
    ended: float
    carried_out: bool


First = Callable[[Trial, Sequence[Event]], bool | None]


def never(trial: Trial, events: Sequence[Event]) -> bool:
    """Whoever comes first, the desk is killed afterwards."""
    return False


@dataclass(frozen=True)
class Race:
    """`first` says whether the kill came first, None where the other never came; `may_run` whether the desk may run afterwards.

    `trials` share a desk.
    """

    name: str
    prepare: Act
    begin: Callable[[Track], Awaitable[bool]]
    first: First
    # What the begin does not wait for; asked for in warm-ups alone, since a kill may prevent it.
    effect: Act | None = None
    may_run: Callable[[Trial, Sequence[Event]], bool] = never
    trials: int = 25
    schema: int | None = None
    # What needs an order, needs cycles; the others have fewer, which leaves the machine to more trials.
    cycle_seconds: float = 3.0


# --- who came first ----------------------------------------------------------------------------------------------------


def recorded(kind: str) -> First:
    """By the history: the order in which Temporal took both signals is that in which the coordinator hears of them."""

    def first(trial: Trial, events: Sequence[Event]) -> bool | None:
        kill, other = (signal_of(events, f"{name}-{trial.number}") for name in ("kill", kind))
        return None if kill is None or other is None else kill < other

    return first


def signal_of(events: Sequence[Event], command_id: str) -> int | None:
    """Where in the history a command arrived."""
    signals = (n for n, event in enumerate(events) if event.kind == "signal" and isinstance(event.payload, dict))
    return next((n for n in signals if events[n].payload.get("command_id") == command_id), None)


def continued(trial: Trial, events: Sequence[Event]) -> bool | None:
    """Whether the kill is in the run that was there when the trial began."""
    kill = signal_of(events, f"kill-{trial.number}")
    ends = [n for n, event in enumerate(events) if event.kind == "continued" and event.at >= trial.began]
    return None if kill is None or not ends else kill < ends[0]


def ended(trial: Trial, events: Sequence[Event]) -> bool | None:
    """Whether the kill was recorded while the process that was told to end was still there."""
    kill = signal_of(events, f"kill-{trial.number}")
    return None if kill is None else events[kill].at < trial.ended


def before_the_restart(trial: Trial, events: Sequence[Event]) -> bool | None:
    """Whether the kill is recorded before the restart is, or the restart is not at all, since it saw the kill in time."""
    kill = signal_of(events, f"kill-{trial.number}")
    named = ((n, event.at) for n, event in enumerate(events) if event.kind == "signal" and event.name == "restart")
    sent = [n for n, at in named if trial.began <= at <= trial.ended]
    return None if kill is None else not sent or kill < sent[0]


def asked_later(trial: Trial, events: Sequence[Event]) -> bool:
    """Who asks for a restart once the kill is recorded means that kill, and may clear it; any later one wins."""
    kill = signal_of(events, f"kill-{trial.number}")
    return trial.carried_out and kill is not None and events[kill].at <= trial.began + CLOCK_SECONDS


# --- the others --------------------------------------------------------------------------------------------------------


def command(kind: str) -> Callable[[Track], Awaitable[bool]]:
    """A command over HTTP."""

    async def begin(track: Track) -> bool:
        await track.other(kind)
        return True

    return begin


async def limits(track: Track) -> bool:
    """Each trial's a little tighter than the last one's: looser ones are for paused desks."""
    await track.other("set_limits", limits={"max_leverage": f"{1.9 - track.number / 1000:.3f}"})
    return True


async def deleverage(track: Track) -> bool:
    """Two lots of what is held."""
    await track.other("deleverage", symbol=SYMBOL, reduce_pct=round(0.0021 / await track.position(), 6))
    return True


async def cancelled(track: Track) -> None:
    """No order rests."""

    async def gone() -> bool:
        return not await track.rests()

    assert await track.comes(gone)


async def reduced(track: Track) -> None:
    """Nothing of it is left to do."""

    async def done() -> bool:
        return not (await track.status())["open_instructions_total"]

    assert await track.comes(done)


async def restart(track: Track) -> bool:
    """By hand, of a killed desk."""
    return await track.restart()


async def continue_as_new(track: Track) -> bool:
    """So many signals that the server suggests an end of the run."""
    before = await track.run_id()
    for number in range(0, MOST_SIGNALS, SIGNALS_AT_ONCE):
        args: dict[str, object] = {"symbols": [SYMBOLS[number % len(SYMBOLS)]]}
        await asyncio.gather(*(a_signal(track.desk, args) for _ in range(SIGNALS_AT_ONCE)), return_exceptions=True)
        if await track.run_id() != before:
            break

    async def went_on() -> bool:
        return await track.run_id() != before

    # The server begins no two runs within a second.
    return await track.comes(went_on)


async def worker_shutdown(track: Track) -> bool:
    """SIGTERM to one of the two."""
    await _stop(track, WORKERS[track.number % 2])
    return True


async def both_workers(track: Track) -> None:
    """Running, with both workers there: the one that the trial before has ended is started."""
    for name in WORKERS:
        if track.desk.processes[name].ended.done():
            await track.desk.start(name)
        await _polls(track, name)
    await track.running()


async def upgrade(track: Track) -> bool:
    """One worker after the other is replaced, and the run of the release before continues as new into this one's."""
    for name in WORKERS:
        await _stop(track, name)
        await _start(track, name)
    return await continue_as_new(track)


async def _stop(track: Track, name: str) -> None:
    """As the checker knows it of rounds: what a worker had in hand may have to wait for another one."""
    note = track.recorder.note(f"{name}: restart", "worker restart", name)
    await track.desk.processes[name].end(signal.SIGTERM, 30.0)
    note.until = time.time()


async def _start(track: Track, name: str) -> None:
    await track.desk.start(name)
    await _polls(track, name)


async def _polls(track: Track, name: str) -> None:
    pid = track.desk.processes[name].pid
    assert await track.comes(lambda: track.polls(pid)), f"{name} takes no work"


async def crowd(track: Track) -> bool:
    """Two people at two APIs, who pause and resume at the same time."""
    began = time.monotonic()
    others = (("resume", 0, 0.0), ("pause", 1, 0.002), ("resume", 1, 0.004), ("pause", 0, 0.006))

    async def later(kind: str, api: int, after: float, number: int) -> None:
        await asyncio.sleep(max(0.0, began + after - time.monotonic()))
        await track.command(kind, api, number)

    numbers = (track.number, track.number, track.number + 10_000, track.number + 10_000)
    await asyncio.gather(*(later(*other, number) for other, number in zip(others, numbers, strict=True)))
    return True


RACES = {
    race.name: race
    for race in (
        Race("resume", Track.paused, command("resume"), recorded("resume")),
        Race("pause", Track.running, command("pause"), recorded("pause")),
        Race("pause_and_resume", Track.running, crowd, recorded("pause")),
        Race("cancel_all", Track.at_rest, command("cancel_all"), recorded("cancel_all"), cancelled, cycle_seconds=1.0),
        Race("deleverage", Track.held, deleverage, recorded("deleverage"), reduced, cycle_seconds=1.0),
        Race("limits", Track.running, limits, recorded("set_limits")),
        Race("restart", Track.killed, restart, before_the_restart, may_run=asked_later),
        Race("continue_as_new", Track.running, continue_as_new, continued),
        Race("worker_shutdown", both_workers, worker_shutdown, ended),
        # A run of the release before is what a desk begins with, once.
        Race("upgrade", Track.running, upgrade, continued, trials=1, schema=LAST_SCHEMA),
    )
}
