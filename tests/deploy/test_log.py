"""`ais log` on a real PostgreSQL: what it shows, in which order, and what it prints for programs."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Connection

from api.models import DecisionAnswer, InstructionAnswer
from cli import log
from cli.log import LogLine, LogQuery, WrongOption, query_of
from cli.moments import moment_of
from cli.refusals import Refused
from domain.desk.states import Mode
from domain.trading.decisions import DecisionType
from domain.trading.instructions import InstructionOutcome
from storage import books, paper
from storage.database import Database
from storage.decisions import insert_decisions
from storage.instructions import upsert_instructions
from tests.deploy.dev_stack import ais, ais_here, clean_environment, takes_ctrl_c
from tests.postgres import Server
from tests.storage.builders import make_decision, make_instruction, make_order_instruction

ROOT = Path(__file__).parents[2]


def ago(seconds: float) -> datetime:
    """From this very moment: a log that is followed shows the last ten minutes, and a run of all tests takes longer."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=seconds)


@pytest.fixture
async def database(database_url: str, no_settings: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """This process finds the tests' PostgreSQL by its settings, as `ais` does."""
    monkeypatch.setenv("AIS_DATABASE_URL", database_url)
    database = Database(database_url, threads=1, application_name="test")
    yield database
    database.close()


async def write(database: Database, *rows: Any) -> None:
    await database.run(lambda connection: insert_decisions(connection, rows))


class Reader:
    """A person who reads the log."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.said: list[str] = []

    async def reads(self, query: LogQuery, follow: bool = False) -> list[LogLine]:
        await log.run(query, self.lines.append, self.said.append, follow=follow)
        return self.lines

    async def until(self, count: int) -> None:
        async with asyncio.timeout(180):
            while len(self.lines) < count:
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def following(query: LogQuery, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    monkeypatch.setattr(log, "POLL_SECONDS", 0.05)
    reader = Reader()
    task = asyncio.create_task(reader.reads(query, follow=True))
    try:
        yield reader
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_the_newest_rows_come_last_and_not_more_than_the_limit(database: Database) -> None:
    await write(database, *(make_decision(desk="order", summary=f"no {n}", timestamp=ago(n)) for n in range(5)))
    lines = await Reader().reads(LogQuery("order", "decisions", 3))
    assert [line.fields["summary"] for line in lines] == ["no 2", "no 1", "no 0"]


@pytest.mark.parametrize(
    "asked", [{"since": ago(3600)}, {"command_id": "drill-7"}], ids=lambda asked: next(iter(asked))
)
async def test_whoever_asks_for_all_rows_is_told_of_those_that_are_left_out(
    database: Database, asked: dict[str, Any]
) -> None:
    desk = f"all-{next(iter(asked))}"
    await write(
        database,
        *(make_decision(desk=desk, command_id="drill-7", timestamp=ago(n), summary=f"no {n}") for n in range(4)),
    )

    async def said(limit: int, **filters: Any) -> list[str]:
        reader = Reader()
        await reader.reads(LogQuery(desk, "decisions", limit, filters=filters))
        return reader.said

    assert await said(3, **asked) == ["these are the newest 3 only; there are older ones: add --limit 30"]
    assert await said(4, **asked) == await said(3) == []


async def test_the_filters_choose_rows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_DESK", "filters")
    rows: list[dict[str, Any]] = [
        {"summary": "vote", "agent_votes": {"momentum": 0.5}, "symbol": "BTCUSDT"},
        {"summary": "command", "decision_type": DecisionType.CONTROL, "command_id": "drill-7"},
        {"summary": "cut", "decision_type": DecisionType.RISK_ACTION, "symbol": "ETHUSDT", "timestamp": ago(7200)},
    ]
    await write(database, *(make_decision(**{"desk": "filters", "timestamp": ago(5), **row}) for row in rows))

    async def found(kind: str = "decisions", **options: str) -> list[str]:
        named = {f"--{name.replace('_', '-')}": text for name, text in options.items()}
        return [line.fields["summary"] for line in await Reader().reads(query_of(kind, 20, named))]

    assert await found(agent="momentum") == ["vote"]
    assert await found(symbol="btc/usdt") == ["vote"]
    assert await found(type="risk_action") == ["cut"]
    assert await found(command_id="drill-7") == ["command"]
    assert await found("commands") == ["command"]
    assert sorted(await found(since="1h")) == ["command", "vote"]
    assert await found(until="1h") == ["cut"]


@pytest.mark.parametrize(
    ("kind", "option", "text"),
    [
        ("decisions", "--since", "yesterday"),
        ("decisions", "--type", "orders"),
        ("decisions", "--symbol", "B T C !"),
        ("fills", "--command-id", "drill-7"),
        ("instructions", "--agent", "momentum"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(kind: str, option: str, text: str, no_settings: Path) -> None:
    with pytest.raises(WrongOption) as refused:
        query_of(kind, 20, {option: text})
    assert refused.value.option == option


def test_a_time_is_ago_or_in_utc_unless_it_says_otherwise() -> None:
    assert abs((datetime.now(UTC) - timedelta(minutes=10) - moment_of("10m")).total_seconds()) < 5
    with pytest.raises(ValueError, match="is not a time"):
        moment_of("999999d")
    assert moment_of("2026-03-12T14:30:00") == datetime(2026, 3, 12, 14, 30, tzinfo=UTC)
    assert moment_of("2026-03-12T14:30:00+02:00") == datetime(2026, 3, 12, 12, 30, tzinfo=UTC)


async def test_instructions_have_the_keys_of_the_http_api(database: Database) -> None:
    order = make_order_instruction()
    row = make_instruction(desk="sent", order=order, symbol=order.symbol, tool=order.tool, outcome="confirmed")
    await database.run(lambda connection: upsert_instructions(connection, [row]))
    (line,) = await Reader().reads(LogQuery("sent", "instructions", 20))
    assert line.fields.keys() <= InstructionAnswer.model_fields.keys()
    assert "create_order BTCUSDT BUY 0.125" in line.text


async def test_following_shows_new_rows_late_ones_too_each_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [make_decision(desk="follow", timestamp=ago(n), summary=f"old {n}") for n in (40, 30, 20)]
    await write(database, *old)
    async with following(LogQuery("follow", "decisions", 1), monkeypatch) as reader:
        await reader.until(1)
        await write(database, make_decision(desk="follow", timestamp=ago(0), summary="new"))
        await reader.until(2)
        await write(database, make_decision(desk="follow", timestamp=ago(300), summary="late"))
        await reader.until(3)
        await asyncio.sleep(0.3)
        assert [line.fields["summary"] for line in reader.lines] == ["old 20", "new", "late"]


async def test_following_an_empty_log_shows_the_first_row(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(LogQuery("empty", "decisions", 20), monkeypatch) as reader:
        async with asyncio.timeout(180):
            while not reader.said:
                await asyncio.sleep(0.02)
        await write(database, make_decision(desk="empty", timestamp=ago(0), summary="first"))
        await reader.until(1)
        assert reader.lines[0].fields["summary"] == "first"


async def test_following_shows_an_instruction_again_when_its_outcome_is_known(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = make_instruction(desk="outcomes", prepared_at=ago(0))
    await database.run(lambda connection: upsert_instructions(connection, [row]))
    async with following(LogQuery("outcomes", "instructions", 20), monkeypatch) as reader:
        await reader.until(1)
        settled = row.model_copy(update={"outcome": InstructionOutcome.CONFIRMED, "settled_at": ago(0)})
        await database.run(lambda connection: upsert_instructions(connection, [settled]))
        await reader.until(2)
        assert [line.fields["outcome"] for line in reader.lines] == ["prepared", "confirmed"]


async def test_following_shows_the_outcome_of_an_instruction_from_an_hour_ago(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The venue was away for that long. Whoever followed the log saw that the cancel was prepared, and no more."""
    old = make_instruction(desk="away", prepared_at=ago(3_600))
    newer = make_instruction(desk="away", prepared_at=ago(0), outcome=InstructionOutcome.CONFIRMED)
    await database.run(lambda connection: upsert_instructions(connection, [old, newer]))
    async with following(LogQuery("away", "instructions", 20), monkeypatch) as reader:
        await reader.until(2)
        for number, outcome in enumerate((InstructionOutcome.UNKNOWN, InstructionOutcome.CONFIRMED), 3):
            changed = old.model_copy(update={"outcome": outcome, "settled_at": ago(0)})
            await database.run(partial(upsert_instructions, rows=[changed]))
            await reader.until(number)
        # Once more, so that a line that is shown twice would be seen.
        last = make_instruction(desk="away", prepared_at=ago(0))
        await database.run(lambda connection: upsert_instructions(connection, [last]))
        await reader.until(5)
        assert [line.fields["outcome"] for line in reader.lines] == [
            "prepared", "confirmed", "unknown", "confirmed", "prepared",
        ]  # fmt: skip


async def test_fills_of_a_live_desk_whose_books_are_not_read_are_not_called_none(database: Database) -> None:
    with pytest.raises(Refused, match="not read yet"):
        await Reader().reads(LogQuery("unread", "fills", 20, live=True))


@pytest.mark.parametrize(("is_set_to_live", "mode"), [(False, Mode.LIVE), (True, Mode.PAPER)])
def test_fills_are_those_of_the_account_that_the_desk_is_on(
    is_set_to_live: bool, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `ais restart --mode live` they were those of the paper account for as long as AIS_MODE here said so."""
    monkeypatch.setattr(log, "read_desk", lambda *_: SimpleNamespace(mode=mode))
    monkeypatch.setattr(paper, "fills_page", lambda *_: ([], "of paper"))
    monkeypatch.setattr(books, "fills_page", lambda *_: ([], "of live"))
    monkeypatch.setattr(books, "find_books", lambda *_: SimpleNamespace(state=SimpleNamespace(opening=1)))
    query = LogQuery("main", "fills", 20, live=is_set_to_live)
    assert query.page(cast("Connection", None)) == ([], f"of {mode.value}")


async def test_of_a_desk_that_this_database_does_not_know_it_says_so(database: Database) -> None:
    reader = Reader()
    assert await reader.reads(LogQuery("nowhere", "fills", 20)) == []
    assert reader.said == ["no fills of desk 'nowhere' to show; this database has never had a desk of that name"]


async def test_a_piped_log_is_plain_and_json_is_an_object_a_line(
    database: Database, database_url: str, no_settings: Path
) -> None:
    written = ago(0)
    row = make_decision(desk="piped", timestamp=written, summary="kill: \x1b[2J\u202estop", decision_type="control")
    await write(database, row)
    plain = ais("log", "--desk", "piped", cwd=no_settings, AIS_DATABASE_URL=database_url)
    assert (plain.returncode, plain.stderr) == (0, "")
    assert plain.stdout == f"{written.isoformat()}  control       kill: [2Jstop\n"
    programs = await asyncio.to_thread(
        ais_here, "log", "--desk", "piped", "--json", cwd=no_settings, AIS_DATABASE_URL=database_url
    )
    (line,) = programs.stdout.splitlines()
    assert json.loads(line).keys() == DecisionAnswer.model_fields.keys()
    assert "\x1b" not in line


async def test_ctrl_c_ends_a_followed_log_with_0(database: Database, database_url: str, no_settings: Path) -> None:
    await write(database, make_decision(desk="ended", timestamp=ago(0)))
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "log", "--follow", "--desk", "ended"],
        cwd=no_settings, env=clean_environment() | {"AIS_DATABASE_URL": database_url, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=takes_ctrl_c,  # noqa: PLW1509 - it resets a signal and takes no lock
    )  # fmt: skip
    assert process.stdout
    assert "Selected" in process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["log", "--kind", "orders"], 2, "decisions"),
        (["log", "--limit", "0"], 2, "--limit"),
        (["log", "--follow", "--until", "1h"], 2, "--until"),
        (["log", "--since", "noon"], 2, "10m, 2h, 1d"),
        (["log"], 1, "PostgreSQL"),
    ],
)
def test_a_mistake_of_a_person_is_no_traceback(arguments: list[str], code: int, told: str, tmp_path: Path) -> None:
    done = ais_here(*arguments, cwd=tmp_path, AIS_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


async def test_following_outlives_a_database_that_hangs(
    database: Database, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(LogQuery("hangs", "decisions", 20), monkeypatch) as reader:
        async with asyncio.timeout(180):
            while not reader.said:
                await asyncio.sleep(0.02)
            with postgres.hung():
                while not any("cannot be read" in text for text in reader.said):
                    await asyncio.sleep(0.02)
            while "the log can be read again" not in reader.said:
                await asyncio.sleep(0.02)
        await write(database, make_decision(desk="hangs", timestamp=ago(0)))
        await reader.until(1)
