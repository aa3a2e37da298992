"""Carries out `ais watch`: shows the desk full-screen, redrawn every second.

If the coordinator no longer answers, the last answer stays on the screen, marked STALE and with its age.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import settings
from cli.connecting import connect_lazily
from cli.tables import NOT_READ, is_overdue, kill_text, level_words, reading_is_old, why_text
from domain.desk.states import State
from domain.desk.status import ObservationStatus, Status
from domain.values import digits, iso, plain, printable
from workflows.gateway import DeskGateway, GatewayError

REFRESH_SECONDS = 1.0
STALE_SECONDS = 3.0
ASK_SECONDS = 3.0
MAX_LINES = 6
STALE = "bold reverse"

_COLOURS = {State.RUNNING: "black on green", State.PAUSED: "black on yellow", State.KILLED: "white on red"}


class Sight(NamedTuple):
    """What is known: the last answer, its age, and why there is no newer one."""

    desk: str
    status: Status | None
    age_seconds: float
    error: str | None
    now: datetime

    @property
    def is_stale(self) -> bool:
        """Whether the last answer may be outdated: it is old, or a newer query was not answered."""
        return self.status is None or self.error is not None or self.age_seconds > STALE_SECONDS


class StatusPoller:
    """Queries one coordinator repeatedly, and keeps the last answer."""

    def __init__(self, gateway: DeskGateway) -> None:
        self._gateway = gateway
        self._status: Status | None = None
        self._read_at = _clocks()
        self._error: str | None = None

    async def ask(self) -> None:
        """Queries once; an error leaves the last answer as it was."""
        asked_at = _clocks()
        try:
            self._status = await self._gateway.status()
            # The answer counts from the time of the query, however long it took.
            self._read_at, self._error = asked_at, None
        except GatewayError as error:
            self._error = str(error)

    async def keep_asking(self) -> None:
        """Queries until it is cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(REFRESH_SECONDS)

    def sight(self) -> Sight:
        """What is known now."""
        age = max(now - then for now, then in zip(_clocks(), self._read_at, strict=True))
        return Sight(self._gateway.desk, self._status, age, self._error, datetime.now(UTC))


def _clocks() -> tuple[float, float]:
    """Two clocks: one stands still while the machine sleeps, and somebody may set the other."""
    return time.monotonic(), time.time()


async def run(console: Console) -> bool:
    """Draws until cancelled on a terminal, or a single frame elsewhere. Returns whether the coordinator answered."""
    desk = settings.DeskSettings.load().desk
    poller = StatusPoller(DeskGateway(await connect_lazily(), desk, patience=ASK_SECONDS))
    if not console.is_terminal:
        await poller.ask()
        console.print(frame(poller.sight(), plain_text=True))
        return poller.sight().status is not None
    asking = asyncio.create_task(poller.keep_asking())
    try:
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="ellipsis") as live:
            # Redrawn whether or not the query is answered, since the ages grow.
            while not asking.done():
                live.update(frame(poller.sight()), refresh=True)
                await asyncio.sleep(REFRESH_SECONDS / 2)
    finally:
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    return True


# --- the frame ------------------------------------------------------------------------------------------------------


def frame(sight: Sight, *, plain_text: bool = False) -> RenderableType:
    """The screen: first the state in large letters, then what needs a person's attention, then the rest."""
    parts: list[RenderableType] = [_banner(sight, plain_text)]
    if sight.is_stale:
        why = printable(sight.error or "the coordinator has not answered since")
        old = f"STALE: everything below is {sight.age_seconds:.0f} s old. {why}"
        none = f"nothing was read in the {sight.age_seconds:.0f} s since this view began: {why}"
        parts.append(Text(none if sight.status is None else old, style=STALE))
    if sight.status is not None:
        parts.append(_facts(sight, sight.status))
        parts += _limits(sight, sight.status)
    if not plain_text:
        parts.append(Text(f"{iso(sight.now)}  Ctrl-C ends this view; the desk goes on", style="dim"))
    return Group(*parts)


def _banner(sight: Sight, plain_text: bool) -> RenderableType:
    """The state in large letters; in the past tense unless it was confirmed just now."""
    state = sight.status.state if sight.status else None
    word = "NOT KNOWN" if state is None else f"WAS {state.value.upper()}" if sight.is_stale else state.value.upper()
    if plain_text:
        return Text(f"{sight.desk}: {word}")
    style = "black on white" if state is None or sight.is_stale else _COLOURS[state]
    large = Text.assemble(f"desk {sight.desk}\n\n", (" ".join(word), "bold"), justify="center")
    return Padding(large, (1, 2), style=style)


def _facts(sight: Sight, status: Status) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text, style in _rows(sight, status):
        # As text, not markup: a reason may contain brackets.
        table.add_row(Text(name, style="bold"), Text(printable(text), style=style))
    return table


def _rows(sight: Sight, status: Status) -> Iterator[tuple[str, str, str]]:
    yield "since", f"{iso(status.since)}, {_ago(status.since, sight.now)}", ""
    yield "why", why_text(status), ""
    yield from _kill_rows(status)
    yield "last cycle", *_cycle_text(sight, status)
    yield "positions", *_positions_text(sight, status)
    yield "resting", *_resting_text(sight, status)
    yield from _waiting_rows(status)
    last = status.last_decision
    yield "decision", f"{last.summary} ({_ago(last.timestamp, sight.now)})" if last else "none yet", ""
    for warning in status.warnings[:MAX_LINES]:
        yield "warning", warning, "bold yellow"
    if len(status.warnings) > MAX_LINES:
        yield "", f"and {len(status.warnings) - MAX_LINES} more: ais status", "bold"


def _kill_rows(status: Status) -> Iterator[tuple[str, str, str]]:
    if status.restart_pending:
        yield "restart", "pending; the desk stays killed until the latch is cleared", "bold"
    if status.kill is None:
        return
    yield "kill", kill_text(status), "" if status.kill.verified_at else "bold"
    for left in status.kill.residue[:MAX_LINES]:
        yield "outstanding", left, "bold"
    if len(status.kill.residue) > MAX_LINES:
        # The status itself lists only the first few.
        yield "", "and more: ais status", "bold"
    if not status.kill.residue:
        yield "outstanding", "none", ""


def _waiting_rows(status: Status) -> Iterator[tuple[str, str, str]]:
    """Counts that are normally all zero."""
    counts = {
        "open instructions": status.open_instructions_total,
        # A coordinator of an earlier version tells no total.
        "unknown orders": max(status.unknown_orders_total, len(status.unknown_orders)),
        "unwritten rows": status.records_waiting,
        "commands pending": status.commands_pending,
    }
    waiting = [f"{name} {count}" for name, count in counts.items() if count]
    if waiting:
        yield "waiting", ", ".join(waiting), "bold"


def _cycle_text(sight: Sight, status: Status) -> tuple[str, str]:
    if status.last_cycle_at is None:
        return "never", "bold"
    overdue = sight.is_stale or is_overdue(status.last_cycle_at, status, sight.now)
    text = f"{status.cycle_number}, {_ago(status.last_cycle_at, sight.now)}, every {status.cycle_seconds:g} s"
    return (f"STALE: {text}", STALE) if overdue else (text, "")


def _positions_text(sight: Sight, status: Status) -> tuple[str, str]:
    seen = status.observation
    if seen is None:
        return f"not known: {status.observation_error or 'no cycle yet'}", "bold"
    held = ", ".join(f"{p.symbol} {plain(p.quantity)} at {digits(p.entry_price)}" for p in seen.positions if p.quantity)
    text = f"{held or 'none'}; nav {digits(seen.nav)}; read {_ago(seen.observed_at, sight.now)}"
    if not _reading_is_stale(seen, sight, status):
        return text, ""
    return f"STALE: {text}{f'; since then: {status.observation_error}' if status.observation_error else ''}", STALE


def _limits(sight: Sight, status: Status) -> list[RenderableType]:
    """Each limit with its measure, its soft and hard number, and its level in words."""
    if status.portfolio is None:
        return [Text("limits: not known, no reading of the account yet", style="bold")]
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_row(*(Text(name, style="bold") for name in ("limit", "now", "soft", "hard", "level")))
    for limit in status.portfolio.limits:
        style = {"soft": "bold yellow", "hard": "bold red"}.get(limit.level, "")
        numbers = (_short(limit.value), _short(limit.soft), _short(limit.hard))
        table.add_row(*(Text(cell, style=style) for cell in (limit.limit, *numbers, level_words(limit)[1])))
    old = status.observation is None or _reading_is_stale(status.observation, sight, status)
    return [*([Text("STALE: the limits are from an old reading", style=STALE)] if old else []), table]


def _resting_text(sight: Sight, status: Status) -> tuple[str, str]:
    seen, orders = status.observation, f"{status.resting_orders_total} orders"
    if seen is None:
        return (orders if status.resting_orders_total else NOT_READ), ""
    return (f"STALE: {orders}", STALE) if _reading_is_stale(seen, sight, status) else (orders, "")


def _short(number: object) -> str:
    return f"{number:.4g}"


def _reading_is_stale(seen: ObservationStatus, sight: Sight, status: Status) -> bool:
    return sight.is_stale or reading_is_old(status, sight.now)


def _ago(moment: datetime, now: datetime) -> str:
    seconds = (now - moment).total_seconds()
    if seconds < -1:
        return f"{-seconds:.0f} s ahead of this machine's clock"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
