"""What a desk has been told, kept beside its own memory: by it, the same command id twice is one effect and one outcome."""

from typing import NamedTuple

from domain.desk import applying
from domain.desk.carried import Carried, Outcome
from domain.desk.commands import Command
from domain.desk.recording import Tick
from domain.desk.states import CommandKind, State


class Told(NamedTuple):
    """A command that was taken: what it was, and what became of it, once that was known."""

    fingerprint: str
    outcome: Outcome


class Ledger:
    """All commands whose sender chose the id. It is passed from run to run, so that no end of a run excuses forgetting."""

    def __init__(self, told: dict[str, Told] | None = None) -> None:
        self._told = dict(told or {})
        # A replay is compared with what was checked already.
        self.checks = True

    def copy(self) -> "Ledger":
        """The same facts, for another run."""
        return Ledger(self._told)

    def take(self, c: Carried, command: Command, tick: Tick) -> None:
        """Applies the command, and checks what that may change."""
        known = self._told.get(command.command_id)
        if not self.checks:
            applying.apply(c, command, tick)
            return
        must_kill = command.kind is CommandKind.KILL and (c.state is not State.KILLED or c.restart is not None)
        if known is None or must_kill:
            self._is_new(c, command, tick)
        elif known.fingerprint == command.fingerprint:
            before = c.model_dump_json()
            applying.apply(c, command, tick)
            assert c.model_dump_json() == before, f"{command.command_id} was carried out twice"
        else:
            self._is_another(c, command, tick)

    def _is_new(self, c: Carried, command: Command, tick: Tick) -> None:
        applying.apply(c, command, tick)
        record = c.commands[command.command_id]
        assert record.fingerprint == command.fingerprint
        if command.named:
            self._told[command.command_id] = Told(command.fingerprint, record.outcome)

    def _is_another(self, c: Carried, command: Command, tick: Tick) -> None:
        """Another command under a known id changes nothing, and the log says so."""
        told = {"records", "last_decision"}
        before, rows = c.model_dump_json(exclude=told), len(c.records)
        applying.apply(c, command, tick)
        assert c.model_dump_json(exclude=told) == before, f"the id {command.command_id} did two things"
        assert len(c.records) == rows + 1
        assert c.records[-1].result == "refused"

    def check(self, c: Carried) -> None:
        """No outcome that was told is forgotten, or told otherwise later."""
        for command_id, told in self._told.items():
            record = c.commands.get(command_id)
            assert record is not None, f"the outcome of {command_id} is forgotten"
            assert record.fingerprint == told.fingerprint
            assert told.outcome in (Outcome.PENDING, record.outcome), (
                f"{command_id}: {told.outcome}, then {record.outcome}"
            )
            if told.outcome is not record.outcome:
                self._told[command_id] = told._replace(outcome=record.outcome)
