"""Draws a replay: price, equity and drawdown, and the actions of the limits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domain.risk.limits import Limits
from replay.curve import Point
from replay.run import Run
from replay.tally import KILLED, REDUCED

COLOURS = {KILLED: "#c0392b", REDUCED: "#e67e22"}
MAX_COLUMNS = 3
# Each takes half a second and 3 MB of a canvas that is in memory as a whole: a thousand would take ten minutes and 3 GB.
MAX_DRAWN = 30
PRICE, EQUITY, DRAWDOWN = "#34495e", "#1f77b4", "#7f8c8d"


def draw(path: Path, runs: Sequence[Run], symbol: str, limits: Limits) -> None:
    """Writes a PNG: three panels for each of the first stretches, up to three stretches side by side. ModuleNotFoundError
    without matplotlib."""
    # Late: it takes most of a second, and a replay without a chart does not need it.
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    runs = runs[:MAX_DRAWN]
    columns = min(len(runs), MAX_COLUMNS)
    rows = -(-len(runs) // columns)
    figure = pyplot.figure(figsize=(max(11.0, 7.0 * columns), 9.0 * rows), layout="constrained")
    places = figure.subfigures(rows, columns, squeeze=False).flat
    for place, run in zip(places, runs, strict=False):
        _panels(place.subplots(3, sharex=True, gridspec_kw={"height_ratios": [3, 2, 2]}), run, symbol, limits)
        place.align_ylabels()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panels(axes: Any, run: Run, symbol: str, limits: Limits) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    points = run.tally.curve.points()
    times = [point.time for point in points]
    marker = "o" if len(points) == 1 else None  # A single bar makes no line.
    lows, highs = [float(p.low) for p in points], [float(p.high) for p in points]
    axes[0].fill_between(times, lows, highs, color=PRICE, alpha=0.2)
    axes[0].plot(times, [float(p.price) for p in points], color=PRICE, linewidth=1, label="price", marker=marker)
    axes[0].set_ylabel("price")
    axes[0].set_title(f"{symbol}  {run.stretch.episode}".strip(), loc="left", fontweight="bold")
    poorest, richest = [float(p.poorest) for p in points], [float(p.richest) for p in points]
    axes[1].fill_between(times, poorest, richest, color=EQUITY, alpha=0.3)
    axes[1].plot(times, [float(p.equity) for p in points], color=EQUITY, linewidth=1.2, marker=marker)
    axes[1].set_ylabel("equity")
    _drawdown(axes[2], times, points, limits)
    _mark(axes, run)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes[2].xaxis.set_major_locator(locator)
    axes[2].xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _drawdown(axis: Any, times: Sequence[Any], points: Sequence[Point], limits: Limits) -> None:
    depth = [-100 * float(p.drawdown) for p in points]
    axis.fill_between(times, depth, 0, color=DRAWDOWN, alpha=0.6)
    axis.set_ylabel("drawdown, %")
    for name, bound, kind in (("soft", limits.soft_drawdown, REDUCED), ("hard", limits.hard_drawdown, KILLED)):
        axis.axhline(-100 * float(bound), color=COLOURS[kind], linestyle="--", linewidth=1, label=f"{name} limit")


def _mark(axes: Any, run: Run) -> None:
    """Adds the actions of the limits to every panel, a grid, and legends."""
    for axis in axes:
        for event in run.tally.events:
            if event.kind in COLOURS:
                width = 1.4 if event.kind == KILLED else 0.9
                axis.axvline(event.time, color=COLOURS[event.kind], linewidth=width, label=event.kind)
        axis.grid(visible=True, alpha=0.25)
        axis.margins(x=0.01)
    for axis in (axes[0], axes[2]):
        # Each label once, however many lines have it.
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        axis.legend(list(handles.values()), list(handles), loc="best", framealpha=0.9)
