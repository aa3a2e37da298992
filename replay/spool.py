"""Writes the JSON of a replay as it runs, so that a list of a hundred thousand decisions is never in memory."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import IO, Any, Self

from pydantic_core import to_json

from domain.trading.assessment import Measures
from domain.trading.decisions import Decision, DecisionType
from domain.trading.market import Bar
from replay.cycle import Cycle, QuietBars

LISTS = ("decisions", "fills", "ledger", "equity")
ITEMS_A_WRITE = 500


class Spool:
    """Four lists that grow on disk until they are copied into the document."""

    def __init__(self) -> None:
        self._files: dict[str, IO[bytes]] = {}
        self._open = ExitStack()
        self._waiting: dict[str, list[str]] = {name: [] for name in LISTS}
        self._votes: dict[str, float] | None = None
        self._measures: Measures | None = None
        self._voted = self._account = ""

    def __enter__(self) -> Self:
        self._files = {name: self._open.enter_context(tempfile.TemporaryFile()) for name in LISTS}
        return self

    def __exit__(self, *reason: object) -> None:
        self._open.close()

    def add(self, found: Cycle | QuietBars) -> None:
        """Takes one bar in, or quiet ones."""
        if isinstance(found, QuietBars):
            self._add_quiet(found)
        else:
            self._add_cycle(found)
        if len(self._waiting["equity"]) >= ITEMS_A_WRITE:
            self._flush()

    def _add_quiet(self, quiet: QuietBars) -> None:
        moments = _moments(quiet.bars)
        if quiet.row:
            rest = self._rest(quiet.row)
            self._waiting["decisions"] += [
                _row(own_id, moment, rest) for own_id, moment in zip(quiet.ids, moments, strict=True)
            ]
        self._waiting["equity"] += [
            self._point(moment, bar, measures)
            for moment, bar, measures in zip(moments, quiet.bars, quiet.measures, strict=True)
        ]

    def _add_cycle(self, cycle: Cycle) -> None:
        waiting, (moment,) = self._waiting, _moments([cycle.bar])
        # A bar's rows have the time of its point.
        waiting["decisions"] += [_row(row.decision_id, moment, self._rest(row)) for row in cycle.decisions]
        if cycle.fills or cycle.entries:
            waiting["fills"] += [fill.model_dump_json(exclude={"desk"}) for fill in cycle.fills]
            waiting["ledger"] += [entry.model_dump_json(exclude={"desk"}) for entry in cycle.entries]
        waiting["equity"].append(self._point(moment, cycle.bar, cycle.measures))

    def _point(self, moment: str, bar: Bar, measures: Measures) -> str:
        """A point of the curve. An account that holds nothing keeps the measures of the bar before."""
        if measures is not self._measures:
            self._measures, self._account = measures, f'"{measures.equity}","{measures.drawdown:.8f}"]'
        return f'["{moment}+00:00","{bar.close}",{self._account}'

    def _rest(self, row: Decision) -> str:
        """A decision's JSON after its id and time. Most rows are another one with another id, another time and perhaps other
        votes."""
        if row.agent_votes is not self._votes:
            self._votes, self._voted = row.agent_votes, to_json(row.agent_votes).decode()
        kind, outcome = _kind(row.decision_type, row.summary), _outcome(row.risk_passed, *row.risk_reasons)
        signal, order = _quoted(row.selected_signal_id), _quoted(row.selected_order_id)
        return (
            f'{kind},"agent_votes":{self._voted},"selected_signal_id":{signal},"selected_order_id":{order},{outcome}}}'
        )

    def _flush(self) -> None:
        for name, items in self._waiting.items():
            # Every item ends with a comma and a line break.
            self._files[name].write(",\n".join([*items, ""]).encode())
            items.clear()

    def write(self, target: IO[bytes], head: Mapping[str, Any]) -> None:
        """Writes one object: the content of `head`, then the lists."""
        target.write(json.dumps(head, indent=1, default=str)[:-2].encode())
        self._flush()
        for name, file in self._files.items():
            target.write(f',\n "{name}": [\n'.encode())
            # The last item's comma is left out.
            file.truncate(max(0, file.tell() - len(b",\n")))
            file.seek(0)
            shutil.copyfileobj(file, target)
            target.write(b"\n]")
        target.write(b"\n}")


@lru_cache(maxsize=256)
def _kind(kind: DecisionType, summary: str) -> str:
    return to_json({"decision_type": kind, "summary": summary}).decode()[1:-1]


@lru_cache(maxsize=256)
def _outcome(passed: bool | None, *reasons: str) -> str:
    return to_json({"risk_passed": passed, "risk_reasons": reasons}).decode()[1:-1]


def _moments(bars: Sequence[Bar]) -> list[str]:
    """The times of bars, all of them UTC, without the zone: many at once take a third of the time of `isoformat`."""
    return to_json([bar.open_time for bar in bars]).decode()[2:-3].split('Z","')


def _row(own_id: str, moment: str, rest: str) -> str:
    return f'{{"decision_id":"{own_id}","timestamp":"{moment}Z",{rest}'


def _quoted(own_id: str | None) -> str:
    return "null" if own_id is None else f'"{own_id}"'
