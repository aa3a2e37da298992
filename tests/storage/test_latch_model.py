"""The latch as a model: one coordinator, its real row in PostgreSQL, and copies of either store put back at any moment.

What is expected is kept beside it, as the set of kills and restarts that each store has seen: a coordinator whose row has seen
what it has not, or that is killed in either place, is killed, and the row says so, once it was read and written.
"""

import uuid
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import Connection, delete, insert, select

from domain.desk.applying import apply, finish_restart
from domain.desk.carried import Carried
from domain.desk.latch import PAST_IS_OLD, known_latch, row_answered
from domain.desk.observing import take_observation
from domain.desk.outbox import DeskRow, batch_written, desk_row, next_batch
from domain.desk.recording import Tick
from domain.desk.states import CommandKind, State
from storage.desks import ClearedKill, clear_latch, read_desk, write_desk
from storage.tables import desks, kills
from tests.domain.builders import a_command, a_desk, a_tick, an_observation

Events = frozenset[str]


class Copy(NamedTuple):
    """A store as it was, and what it had seen."""

    content: Any
    seen: Events


class Sent(NamedTuple):
    """A row on its way, and what its coordinator had seen."""

    row: DeskRow
    seen: Events


class Latch(RuleBasedStateMachine):
    connection: ClassVar[Connection]

    def __init__(self) -> None:
        super().__init__()
        self.c = a_desk(desk=f"m-{uuid.uuid4().hex[:12]}")
        self.seconds = 0
        self.mine: Events = frozenset()
        self.rows: Events = frozenset()
        self.sent: list[Sent] = []
        self.temporals: list[Copy] = []
        self.databases: list[Copy] = []
        self.is_written = True
        # Whether one of the two may rightly be told that its past is old.
        self.went_back = False
        self.database_went_back = False
        self.write()
        self.both_stores_are_copied()

    def tick(self) -> Tick:
        self.seconds += 1
        return a_tick(timedelta(seconds=self.seconds))

    def event(self) -> Events:
        return frozenset({f"e{self.seconds}-{uuid.uuid4().hex[:6]}"})

    # --- what happens ------------------------------------------------------------------------------------------

    @rule()
    def kill(self) -> None:
        apply(self.c, a_command(CommandKind.KILL), self.tick())
        self.mine |= self.event()

    @rule()
    def write(self) -> None:
        sent = Sent(desk_row(self.c), self.mine)
        self.sent.append(sent)
        row_answered(self.c, sent.row, self.land(sent), self.tick())

    @rule(begins=st.booleans())
    def read(self, begins: bool) -> None:
        known, latch = known_latch(self.c), self.row()
        if begins:
            self.kill()
        observation = an_observation(latch=latch)
        foreign, old = not self.rows <= self.mine, self.warned()
        take_observation(self.c, observation, known, self.tick())
        assert foreign is False or self.c.state is State.KILLED
        assert self.went_back or old or not self.warned(), self.c.warning_texts

    @rule(answered=st.booleans())
    def restart(self, answered: bool) -> None:
        self.settle()
        if not self.killed:
            return
        # By then the next run.
        self.c.hand_over = False
        apply(self.c, a_command(CommandKind.RESTART, kill_number=self.c.kill_number), self.tick())
        restart = self.c.restart
        assert restart, self.c.records[-1].summary
        cleared = ClearedKill(restart.kill_number, restart.kill_id)
        self.is_written = True
        assert clear_latch(self.connection, self.c.desk, cleared, restart.row)
        self.mine |= self.event()
        self.rows |= self.mine
        finish_restart(self.c, None if answered else "no answer", self.tick())
        if not answered:
            self.mine |= self.event()
            return
        self.settle()
        assert self.c.state is State.RUNNING, self.c.reason

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_write_comes_late(self, data: st.DataObject) -> None:
        sent = data.draw(st.sampled_from(self.sent))
        # A kill that this database has forgotten gets the newest number there, under its own id: the desk stays closed, and
        # no coordinator can tell that from an old past of its own.
        self.went_back = self.went_back or (self.database_went_back and sent.row.latch.killed)
        self.land(sent)

    @rule(kills=st.integers(1, 2))
    def an_ordinary_incident(self, kills: int) -> None:
        for _ in range(kills):
            self.kill()
            self.write()
        self.restart(answered=True)

    # --- stores that come back old ---------------------------------------------------------------------------------

    @invariant()
    def both_stores_are_copied(self) -> None:
        self.temporals.append(Copy(self.c.model_dump_json(), self.mine))
        # A third of all statements, were it read where nothing has changed.
        content = [self.stored(desks), self.stored(kills)] if self.is_written else self.databases[-1].content
        self.is_written = False
        self.databases.append(Copy(content, self.rows))

    @rule(data=st.data())
    def put_temporal_back(self, data: st.DataObject) -> None:
        self.put_back(data.draw(st.sampled_from(self.temporals)))

    def put_back(self, copy: Copy) -> None:
        self.c, self.mine = Carried.model_validate_json(copy.content), copy.seen
        self.went_back = True

    @rule(data=st.data())
    def put_database_back(self, data: st.DataObject) -> None:
        contents, self.rows = data.draw(st.sampled_from(self.databases))
        self.database_went_back = self.is_written = True
        for table, rows in zip((desks, kills), contents, strict=True):
            self.connection.execute(delete(table).where(table.c.desk == self.c.desk))
            for row in rows:
                self.connection.execute(insert(table).values(row))

    @rule()
    def lose_the_row(self) -> None:
        self.database_went_back = self.is_written = True
        for table in (desks, kills):
            self.connection.execute(delete(table).where(table.c.desk == self.c.desk))
        self.rows = frozenset()

    # --- what must hold ----------------------------------------------------------------------------------------------

    @rule()
    def settle(self) -> None:
        row = self.row()
        closed = self.c.state is State.KILLED or bool(row and row.killed) or not self.rows <= self.mine
        for _ in range(4):
            take_observation(self.c, an_observation(latch=self.row()), known_latch(self.c), self.tick())
            while self.c.records or self.c.instruction_rows:
                batch_written(self.c, next_batch(self.c))
            if not self.c.latch_due:
                break
            self.write()
        assert not self.c.latch_due
        assert (self.c.state is State.KILLED) == closed
        found = self.row()
        assert found
        assert found.killed == closed
        assert (found.kill_number, found.kill_id) == (self.c.kill_number, self.c.kill_id or None)
        self.mine |= self.rows
        self.rows |= self.mine

    @invariant()
    def killed_is_what_holds_a_kill(self) -> None:
        assert (self.c.state is State.KILLED) == (self.c.kill is not None)

    # --- the parts -----------------------------------------------------------------------------------------------------

    def land(self, sent: Sent) -> Any:
        self.is_written = True
        answer = write_desk(self.connection, sent.row).latch
        self.rows |= sent.seen
        return answer

    @property
    def killed(self) -> bool:
        return self.c.state is State.KILLED

    def row(self) -> Any:
        found = read_desk(self.connection, self.c.desk)
        return found.latch if found else None

    def stored(self, table: Any) -> list[dict[str, Any]]:
        return [dict(r) for r in self.connection.execute(select(table).where(table.c.desk == self.c.desk)).mappings()]

    def warned(self) -> bool:
        return any(PAST_IS_OLD in warning for warning in self.c.warning_texts)

    def teardown(self) -> None:
        self.connection.rollback()


@pytest.mark.parametrize("examples", [50, pytest.param(400, marks=pytest.mark.long)])
def test_no_store_that_comes_back_old_leads_from_killed_to_running(migrated: Connection, examples: int) -> None:
    checked = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    Latch.connection = migrated
    run_state_machine_as_test(Latch, settings=checked)


def test_a_kill_in_a_past_that_came_back_is_not_the_one_of_that_number_which_was_cleared(migrated: Connection) -> None:
    """Temporal's store put back twice from before a kill and its restart: the second time, the desk traded again."""
    Latch.connection = migrated
    desk = Latch()
    desk.an_ordinary_incident(1)
    for _ in range(2):
        desk.put_back(desk.temporals[0])
        if not desk.row().killed:
            desk.kill()
        desk.settle()
        assert desk.killed
        assert desk.row().killed
    desk.restart(answered=True)
    assert not desk.killed
    desk.teardown()
