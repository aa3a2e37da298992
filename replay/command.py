"""Carries out `ais replay`: builds a replay from a desk's settings and the flags, and writes its three outputs."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import settings
from activities.agents.catalogue import UnknownAgent, installed_agents, select
from activities.market.build import build_funding, funding_files
from activities.market.port import MarketError
from activities.market.replay import VolumeUnit
from domain.paper.book import FundingRates
from domain.risk.limits import Limits, changed
from domain.trading.symbols import normalise_symbol
from replay.files import BarsFile, Selection
from replay.report import show
from replay.run import ReplayPlan, Run, replay, spare_collector

STDOUT = "-"


class CannotReplay(Exception):
    """A flag with a wrong value; the text names it and what is allowed."""


EXPECTED = (CannotReplay, MarketError, UnknownAgent)


@dataclass(frozen=True)
class Options:
    """The command line. Values that are None or empty come from the desk's settings."""

    file: Path
    symbol: str
    volume: VolumeUnit | None = None
    episode: str | None = None
    since: str | None = None
    until: str | None = None
    balance: str | None = None
    agents: str | None = None
    limits: Sequence[str] = field(default_factory=tuple)
    funding: Path | None = None
    json: str | None = None
    chart: Path | None = None
    quiet: bool = False


def run(options: Options) -> None:
    """Runs the replay, shows the table, writes JSON and chart. Raises one of EXPECTED, or ValidationError for a setting."""
    _spare_the_sources(options)
    # The table goes to standard output unless the JSON goes there.
    console = Console(stderr=options.json == STDOUT, quiet=options.quiet)
    selection = Selection(options.episode, _moment("--from", options.since), _moment("--to", options.until))
    volume = options.volume or settings.WorkerSettings.load().market_volume
    file = BarsFile(options.file, _symbol(options.symbol), volume, selection)
    plan = _plan(options)
    stretches = file.stretches()
    spare_collector()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    progress = Progress(*columns, console=Console(stderr=True), disable=options.quiet)
    with _json_target(options) as target, progress, redirect_stdout(sys.stderr):
        task = progress.add_task("replaying", total=sum(stretch.bars for stretch in stretches))
        # What an agent prints must not end up in the JSON.
        runs = replay(file, stretches, plan, target, lambda bars: progress.advance(task, bars))
    for done in runs:
        title = " ".join(part for part in (plan.symbol, options.file.name, done.stretch.episode) if part)
        show(console, title, done.tally, done.stretch)
    _draw(options, runs, plan, console)


def _spare_the_sources(options: Options) -> None:
    """Raises if an output would overwrite a file that is read: it would be empty before its first bar was replayed."""
    own, symbols = settings.PaperVenueSettings.load().paper_funding, _symbols_with_funding(_symbol(options.symbol))
    rates = [options.funding] if options.funding else [*funding_files(own, symbols).values()]
    for flag, output in (("--json", options.json), ("--chart", options.chart)):
        for source in (options.file, *rates):
            if output and output != STDOUT and Path(output).resolve() == source.resolve():
                raise CannotReplay(f"{flag}: {output} is a file that the replay reads; name another one")


def _plan(options: Options) -> ReplayPlan:
    paper, agents = settings.PaperVenueSettings.load(), settings.AgentSettings.load()
    limits = settings.LimitSettings.load()
    symbol = _symbol(options.symbol)
    names = tuple(options.agents.split(",")) if options.agents else agents.agents
    return ReplayPlan(
        symbol=symbol,
        terms=paper.terms(),
        funding=_funding(options.funding, symbol, paper),
        balance=_number("--balance", options.balance) if options.balance else paper.paper_balance,
        limits=_limits(limits, options.limits),
        agents=select(installed_agents(), names),
        weights=dict(agents.agent_weights),
        kill_flattens=limits.kill_flattens,
    )


def _funding(file: Path | None, symbol: str, paper: settings.PaperVenueSettings) -> FundingRates:
    """The rates of the flag's file, or those that the desk would pay: its own files are each for one of its symbols."""
    if file:
        return build_funding(str(file), [symbol], paper.paper_funding_rate)
    return build_funding(paper.paper_funding, _symbols_with_funding(symbol), paper.paper_funding_rate)


def _symbols_with_funding(symbol: str) -> list[str]:
    """The symbols that the desk's setting may name: its own, the first one first, and the one that is replayed."""
    return list(dict.fromkeys([*settings.DeskSettings.load().symbols, symbol]))


def _limits(configured: settings.LimitSettings, changes: Sequence[str]) -> Limits:
    # A replay's data is never old: its clock is that of its bars.
    base = configured.limits(settings.DeskSettings.load().cycle)
    pairs = [change.partition("=") for change in changes]
    wrong = next((name for name, equals, value in pairs if not (name and equals and value)), None)
    if wrong is not None:
        raise CannotReplay(f"--limit: {wrong!r} is not NAME=VALUE, such as hard_drawdown=0.05")
    try:
        return changed(base, {name.strip(): value.strip() for name, _, value in pairs})[0]
    except ValueError as error:
        raise CannotReplay(f"--limit: {error}") from None


def _symbol(text: str) -> str:
    try:
        return normalise_symbol(text)
    except ValueError as error:
        raise CannotReplay(f"--symbol: {error}") from None


def _moment(flag: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CannotReplay(f"{flag}: {text!r} is not a time, such as 2022-01-21 or 2022-01-21T14:30") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(flag: str, text: str) -> Decimal:
    try:
        number = Decimal(text)
    except ArithmeticError:
        number = Decimal(0)
    if not number.is_finite() or number <= 0:
        raise CannotReplay(f"{flag}: {text!r} is not a number above 0")
    return number


@contextmanager
def _json_target(options: Options) -> Iterator[IO[bytes] | None]:
    if options.json is None:
        yield None
    elif options.json == STDOUT:
        yield sys.stdout.buffer
    else:
        try:
            target = Path(options.json).open("wb")
        except OSError as error:
            raise CannotReplay(f"--json: {options.json} cannot be written: {error.strerror}") from None
        with target:
            yield target


def _draw(options: Options, runs: list[Run], plan: ReplayPlan, console: Console) -> None:
    if options.chart is None:
        return
    from replay.chart import MAX_DRAWN, draw

    try:
        draw(options.chart, runs, plan.symbol, plan.limits)
    except ModuleNotFoundError as error:
        needs = f"the chart needs {error.name}: pip install matplotlib, or leave it out with --no-chart"
        raise CannotReplay(needs) from None
    except OSError as error:
        raise CannotReplay(f"--chart: {options.chart} cannot be written: {error}") from None
    drawn = f", of the first {MAX_DRAWN} of {len(runs):,} episodes" if len(runs) > MAX_DRAWN else ""
    console.print(f"chart  {options.chart}{drawn}", highlight=False)
    if options.json and options.json != STDOUT:
        console.print(f"json   {options.json}", highlight=False)
