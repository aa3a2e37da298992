"""The record of a round: every call with its start, its end and its answer, a JSON object a line, written at once."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# What a caller was told. `done` and `refused` are the coordinator's own; `accepted` is recorded and yet to take effect.
DONE, ACCEPTED, REFUSED, NOT_RECORDED, UNKNOWN, INVALID = (
    "done",
    "accepted",
    "refused",
    "not_recorded",
    "unknown",
    "invalid",
)
ACKNOWLEDGED = (DONE, ACCEPTED, REFUSED)


@dataclass
class Call:
    """One call. Times are seconds of this machine's clock; `end` is None where no answer ever came."""

    number: int
    client: str
    channel: str
    kind: str
    start: float
    end: float | None = None
    answer: str = UNKNOWN
    # The command's id, as far as the caller knows it, and a text that stands in its reason and in no other's.
    command_id: str | None = None
    token: str | None = None
    key: str | None = None
    status: int | None = None
    state: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    told: str = ""

    @property
    def acknowledged(self) -> bool:
        """Whether the caller may rely on it."""
        return self.answer in ACKNOWLEDGED


@dataclass
class Note:
    """Something that the harness did: a fault that began or ended, a process that was started."""

    at: float
    text: str
    fault: str = ""
    target: str = ""
    until: float | None = None


class Recorder:
    """Writes calls and notes as they come."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        self.calls: list[Call] = []
        self.notes: list[Note] = []

    def begin(self, client: str, channel: str, kind: str, **more: Any) -> Call:
        """A call that begins now."""
        call = Call(len(self.calls), client, channel, kind, time.time(), **more)
        self.calls.append(call)
        self._write("begin", call)
        return call

    def end(self, call: Call, answer: str, **more: Any) -> None:
        """Its answer, now."""
        call.end, call.answer = time.time(), answer
        for name, value in more.items():
            setattr(call, name, value)
        self._write("end", call)

    def note(self, text: str, fault: str = "", target: str = "") -> Note:
        """What the harness does now."""
        note = Note(time.time(), text, fault, target)
        self.notes.append(note)
        self._write("note", note)
        return note

    def close(self) -> None:
        """The file is whole."""
        self._file.close()

    def _write(self, what: str, entry: Call | Note) -> None:
        self._file.write(json.dumps({"what": what, **asdict(entry)}) + "\n")
        self._file.flush()


def read(path: Path) -> tuple[list[Call], list[Note]]:
    """A record that was written, as it stood at its end."""
    calls: dict[int, Call] = {}
    notes: list[Note] = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if entry.pop("what") == "note":
            notes.append(Note(**entry))
        else:
            calls[entry["number"]] = Call(**entry)
    return [*calls.values()], notes
