"""Reports a replay: the summary in its JSON, and the table on the screen."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table

from domain.accounting import LedgerKind
from domain.values import ZERO, plain
from replay.files import Stretch
from replay.tally import KILLED, REDUCED, WARNED, Event, Tally

MOST_SHOWN = 30
MOST_ALIKE = 3
STYLES = {KILLED: "red", REDUCED: "yellow"}


def head_of(tally: Tally, stretch: Stretch) -> dict[str, Any]:
    """The summary of a stretch. Money and quantities are texts, so that no digit is lost; fractions are texts too."""
    return {
        "episode": stretch.episode or None,
        "bars": tally.bars,
        "interval_seconds": stretch.interval.total_seconds(),
        "gaps": stretch.gaps,
        "longest_gap_seconds": stretch.longest_gap.total_seconds(),
        "rules": stretch.rules.model_dump(mode="json"),
        "summary": _summary(tally),
        "limits": [_event(event) for event in tally.events],
    }


def _summary(t: Tally) -> dict[str, Any]:
    return {
        "from": _iso(t.first_time),
        "to": _iso(t.last_time),
        "opening_equity": str(t.opening_equity),
        "equity": str(t.equity),
        "peak": str(t.peak),
        "largest_drawdown": _fraction(t.worst_drawdown),
        "largest_drawdown_at": _iso(t.worst_drawdown_at),
        "largest_loss_of_a_day": _fraction(t.worst_day_loss),
        "largest_loss_of_a_bar": _fraction(t.worst_bar_loss),
        "killed": _event(t.kill) if t.kill else None,
        "limits_told": dict(t.acted),
        "limits_not_listed": t.acted.total() - len(t.events),
        "decisions": dict(t.decided),
        "refusals": dict(t.refused.most_common()),
        "selected_from": dict(t.selected.most_common()),
        "fills": t.fills,
        "traded": str(t.traded),
        "realised_profit": str(t.realised_profit),
        "fees": str(t.fees),
        "ledger": {kind.value: str(amount) for kind, amount in t.ledger.items()},
    }


def _event(event: Event) -> dict[str, str]:
    return {
        "time": event.time.isoformat(),
        "kind": event.kind,
        "summary": event.text,
        "price": str(event.price),
        "equity": str(event.equity),
    }


def show(console: Console, title: str, tally: Tally, stretch: Stretch) -> None:
    """The table of one stretch, and the actions of its limits."""
    # A file or a program gets no boxes.
    frame, at_edge = (HEAVY_HEAD, True) if console.is_terminal else (None, False)
    table = Table(
        title=title,
        show_header=False,
        title_justify="left",
        title_style="bold",
        min_width=60,
        box=frame,
        pad_edge=at_edge,
    )
    for name, value in _rows(tally, stretch):
        table.add_row(name, value)
    console.print(table)
    if tally.events:
        shown = _most_telling(tally.events)
        events = Table(title="What limits did", title_justify="left", title_style="bold", box=frame, pad_edge=at_edge)
        for name in ("when", "price", "equity", "what"):
            events.add_column(name, justify="right" if name in ("price", "equity") else "left")
        for event in shown:
            row = (_when(event.time), f"{plain(event.price)}", f"{event.equity:,.2f}", event.text)
            events.add_row(*row, style=STYLES.get(event.kind))
        events.caption = _left_out(tally, len(shown))
        console.print(events)


def _left_out(tally: Tally, shown: int) -> str | None:
    """How many events the table does not show, and where they are."""
    listed, told = len(tally.events), tally.acted.total()
    if told > listed:
        return f"and {told - shown:,} more; the JSON and the chart have {listed:,} of these {told:,}"
    return f"and {told - shown:,} more, in the JSON" if told > shown else None


def _rows(t: Tally, stretch: Stretch) -> list[tuple[str, str]]:
    change = (t.equity - t.opening_equity) / t.opening_equity if t.opening_equity else ZERO
    move = (t.last_price - t.first_price) / t.first_price if t.first_price else ZERO
    return [
        ("bars", f"{t.bars:,}, {_when(t.first_time)} to {_when(t.last_time)}"),
        *([("gaps", f"{stretch.gaps:,}, the longest {stretch.longest_gap}")] if stretch.gaps else []),
        ("price", f"{plain(t.first_price)} to {plain(t.last_price)} ({move:+.2%})"),
        ("equity", f"{t.opening_equity:,.2f} to {t.equity:,.2f} ({change:+.2%}), peak {t.peak:,.2f}"),
        (
            "largest drawdown",
            f"{t.worst_drawdown:.2%}" + (f", {_when(t.worst_drawdown_at)}" if t.worst_drawdown else ""),
        ),
        ("largest loss of a day", f"{t.worst_day_loss:.2%}"),
        (
            "fills",
            f"{t.fills:,}, worth {t.traded:,.0f}; realised {t.realised_profit:,.2f}, fees {t.fees:,.2f}{_funding(t)}",
        ),
        ("decisions", _counted(t.decided)),
        ("selected from", _counted(t.selected)),
        ("refused", _counted(t.refused)),
        # Two limits may reach their hard numbers at once; the desk is killed once.
        ("limits", f"warned {t.acted[WARNED]}, reduced {t.acted[REDUCED]}, killed {1 if t.kill else 0}"),
        (
            "killed",
            f"{_when(t.kill.time)} at {plain(t.kill.price)}, equity {t.kill.equity:,.2f}" if t.kill else "never",
        ),
    ]


def _most_telling(events: Sequence[Event]) -> list[Event]:
    """As many events as a person will read, in the order of time. Actions take precedence over warnings, and only the first few
    of each warning are shown, so that a frequent one does not hide others.
    """
    seen: Counter[str] = Counter()
    ranked = []
    for number, event in enumerate(events):
        warning = re.sub(r"[\d.]+", "", event.text, count=1)
        seen[warning] += 1
        if event.kind != WARNED or seen[warning] <= MOST_ALIKE:
            ranked.append((event.kind == WARNED, number))
    return [events[number] for number in sorted(number for _, number in sorted(ranked)[:MOST_SHOWN])]


def _funding(t: Tally) -> str:
    paid = t.ledger.get(LedgerKind.FUNDING)
    others = {kind: amount for kind, amount in t.ledger.items() if kind is not LedgerKind.FUNDING}
    other_ledger = "".join(f", {kind.value.replace('_', ' ')} {amount:,.2f}" for kind, amount in others.items())
    return (f", funding {paid:,.2f}" if paid else "") + other_ledger


def _counted(counts: dict[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ranked) or "-"


def _fraction(value: Decimal) -> str:
    return f"{value:.8f}"


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _when(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M") if moment else "-"
