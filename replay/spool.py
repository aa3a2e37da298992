"""Writes the JSON of a replay as it runs, so that a list of a hundred thousand decisions is never in memory."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import IO, Any, Self, TypeVar

from domain.trading.decisions import Decision
from replay.engine import Cycle

T = TypeVar("T")

_ROW = {
    "decision_id",
    "timestamp",
    "decision_type",
    "summary",
    "agent_votes",
    "selected_signal_id",
    "selected_order_id",
    "risk_passed",
    "risk_reasons",
}
LISTS = ("decisions", "fills", "ledger", "equity")


class Spool:
    """Four lists that grow on disk until they are copied into the document."""

    def __init__(self) -> None:
        self._files: dict[str, IO[bytes]] = {}
        self._open = ExitStack()
        self._before: Decision | None = None
        self._rest = self._shown = ""
        self._moment: datetime | None = None

    def __enter__(self) -> Self:
        self._files = {name: self._open.enter_context(tempfile.TemporaryFile()) for name in LISTS}
        return self

    def __exit__(self, *reason: object) -> None:
        self._open.close()

    def add(self, cycle: Cycle) -> None:
        """Takes one bar in."""
        if cycle.decisions:
            self._put("decisions", self._row, cycle.decisions)
        if cycle.fills:
            self._put("fills", lambda fill: fill.model_dump_json(exclude={"desk"}), cycle.fills)
        if cycle.entries:
            self._put("ledger", lambda entry: entry.model_dump_json(exclude={"desk"}), cycle.entries)
        m = cycle.measures
        line = f'["{self._iso(cycle.bar.open_time)}","{cycle.bar.close}","{m.equity}","{m.drawdown:.8f}"],\n'
        self._files["equity"].write(line.encode())

    def _row(self, row: Decision) -> str:
        """A decision's JSON. Most rows are the one before with another id and another time."""
        before, when = self._before, self._iso(row.timestamp)
        if before is None or not _is_alike(row, before):
            text = row.model_dump_json(include=_ROW)
            self._before, self._rest = row, text[text.index(',"decision_type":') :]
            return text
        return f'{{"decision_id":"{row.decision_id}","timestamp":"{when.replace("+00:00", "Z")}"{self._rest}'

    def _iso(self, moment: datetime) -> str:
        """A bar's rows have the time of its point."""
        if moment is not self._moment:
            self._moment, self._shown = moment, moment.isoformat()
        return self._shown

    def _put(self, name: str, as_json: Callable[[T], str], items: Iterable[T]) -> None:
        self._files[name].write("".join(as_json(item) + ",\n" for item in items).encode())

    def write(self, target: IO[bytes], head: Mapping[str, Any]) -> None:
        """Writes one object: the content of `head`, then the lists."""
        target.write(json.dumps(head, indent=1, default=str)[:-2].encode())
        for name, file in self._files.items():
            target.write(f',\n "{name}": [\n'.encode())
            # Every item ends with a comma and a line break; the last one's comma is left out.
            file.truncate(max(0, file.tell() - len(b",\n")))
            file.seek(0)
            shutil.copyfileobj(file, target)
            target.write(b"\n]")
        target.write(b"\n}")


def _is_alike(row: Decision, before: Decision) -> bool:
    """Whether two rows differ in their id and time alone, as those of quiet bars do. One line each: this runs for every row."""
    return (
        row.summary is before.summary
        and row.agent_votes is before.agent_votes
        and row.risk_reasons is before.risk_reasons
        and row.risk_passed is before.risk_passed
        and row.decision_type is before.decision_type
        and row.selected_signal_id is before.selected_signal_id
        and row.selected_order_id is before.selected_order_id
    )
