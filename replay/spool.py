"""Writes the JSON of a replay as it runs, so that a list of a hundred thousand decisions is never in memory."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from functools import lru_cache
from typing import IO, Any, Self

from pydantic_core import to_json

from domain.trading.assessment import Measures
from domain.trading.decisions import Decision, DecisionType
from replay.engine import Cycle

LISTS = ("decisions", "fills", "ledger", "equity")
ITEMS_A_WRITE = 500


class Spool:
    """Four lists that grow on disk until they are copied into the document."""

    def __init__(self) -> None:
        self._files: dict[str, IO[bytes]] = {}
        self._open = ExitStack()
        self._waiting: dict[str, list[str]] = {name: [] for name in LISTS}
        self._moment: datetime | None = None
        self._votes: dict[str, float] | None = None
        self._measures: Measures | None = None
        self._when = self._voted = self._account = ""

    def __enter__(self) -> Self:
        self._files = {name: self._open.enter_context(tempfile.TemporaryFile()) for name in LISTS}
        return self

    def __exit__(self, *reason: object) -> None:
        self._open.close()

    def add(self, cycle: Cycle) -> None:
        """Takes one bar in."""
        waiting, bar, measures = self._waiting, cycle.bar, cycle.measures
        for row in cycle.decisions:
            waiting["decisions"].append(self._row(row))
        if cycle.fills or cycle.entries:
            waiting["fills"] += [fill.model_dump_json(exclude={"desk"}) for fill in cycle.fills]
            waiting["ledger"] += [entry.model_dump_json(exclude={"desk"}) for entry in cycle.entries]
        if measures is not self._measures:
            self._measures, self._account = measures, f'"{measures.equity}","{measures.drawdown:.8f}"]'
        points = waiting["equity"]
        points.append(f'["{self._iso(bar.open_time)}","{bar.close}",{self._account}')
        if len(points) == ITEMS_A_WRITE:
            self._flush()

    def _row(self, row: Decision) -> str:
        """A decision's JSON. Most rows are another one with another id, another time and perhaps other votes."""
        if row.agent_votes is not self._votes:
            self._votes, self._voted = row.agent_votes, to_json(row.agent_votes).decode()
        kind, outcome = _kind(row.decision_type, row.summary), _outcome(row.risk_passed, *row.risk_reasons)
        when, signal, order = self._iso(row.timestamp), row.selected_signal_id, row.selected_order_id
        return (
            f'{{"decision_id":"{row.decision_id}","timestamp":"{when.replace("+00:00", "Z")}",{kind},"agent_votes":{self._voted},'
            f'"selected_signal_id":{_quoted(signal)},"selected_order_id":{_quoted(order)},{outcome}}}'
        )

    def _iso(self, moment: datetime) -> str:
        """A bar's rows have the time of its point."""
        if moment is not self._moment:
            self._moment, self._when = moment, moment.isoformat()
        return self._when

    def _flush(self) -> None:
        for name, items in self._waiting.items():
            self._files[name].write("".join([item + ",\n" for item in items]).encode())
            items.clear()

    def write(self, target: IO[bytes], head: Mapping[str, Any]) -> None:
        """Writes one object: the content of `head`, then the lists."""
        target.write(json.dumps(head, indent=1, default=str)[:-2].encode())
        self._flush()
        for name, file in self._files.items():
            target.write(f',\n "{name}": [\n'.encode())
            # Every item ends with a comma and a line break; the last one's comma is left out.
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


def _quoted(own_id: str | None) -> str:
    return "null" if own_id is None else f'"{own_id}"'
