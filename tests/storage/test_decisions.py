"""The decision log: exactly once, exact to the last digit, and every page as cheap as the first."""

import asyncio
import itertools
import json
import random
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from api.rows import entry
from domain.trading.decisions import Decision, DecisionType
from storage.database import Database
from storage.decisions import DecisionFilter, insert_decisions, page, page_statement, page_text
from storage.installation import read_id
from storage.paging import InvalidCursor
from tests.storage.builders import NOW, later, make_decision

ROWS = 50_000


async def insert(database: Database, *rows: Decision) -> list[Decision]:
    return await database.run(partial(insert_decisions, rows=rows))


async def read(database: Database, **wanted: Any) -> list[Decision]:
    rows, _ = await database.run(partial(page, wanted=DecisionFilter(**wanted)))
    return rows


def walk(connection: Connection, **wanted: Any) -> list[str]:
    ids, cursor = [], None
    while True:
        rows, cursor = page(connection, DecisionFilter(cursor=cursor, **wanted))
        ids += [row.decision_id for row in rows]
        if cursor is None:
            return ids


async def test_a_row_stands_once_however_often_it_is_written(database: Database, desk: str) -> None:
    row, other = make_decision(desk=desk), make_decision(desk=desk)
    assert await insert(database, row, row) == [row]
    assert await insert(database, row, other) == [other]
    assert await insert(database) == []
    assert {r.decision_id for r in await read(database, desk=desk)} == {row.decision_id, other.decision_id}


async def test_a_batch_of_thousands_stands_once_and_in_its_order(database: Database, desk: str) -> None:
    """SQLAlchemy sends more than 1,000 rows in several statements."""
    rows = [make_decision(desk=desk) for _ in range(2_500)]
    await insert(database, rows[1_200])
    assert await insert(database, *rows) == [row for row in rows if row is not rows[1_200]]
    written = "SELECT decision_id FROM decisions WHERE desk = :desk ORDER BY written"
    told = await database.run(lambda connection: list(connection.scalars(text(written), {"desk": desk})))
    assert told == [row.decision_id for row in (rows[1_200], *rows[:1_200], *rows[1_201:])]


async def test_writers_at_once_agree_on_whose_row_is_new(database: Database, desk: str) -> None:
    rows = [make_decision(desk=desk, agent_votes={"momentum": 0.5}) for _ in range(20)]
    new = await asyncio.gather(*(insert(database, *rows) for _ in range(4)))
    assert sorted(row.decision_id for batch in new for row in batch) == [row.decision_id for row in rows]


async def test_a_row_comes_back_as_it_was_written(database: Database, desk: str) -> None:
    row = make_decision(
        desk=desk,
        timestamp=later(0.123456),
        agent_votes={"funding_rate": 0.85, "momentum": 0.1 + 0.2, "tiny": 1e-17, "none": 0.0, "sell": -1.0},
        selected_signal_id="sig_1",
        selected_order_id="ord_1",
        risk_passed=False,
        risk_reasons=["position_too_large", "drawdown_breached: 0.2 >= 0.1"],
        symbol="BTCUSDT",
        command_id="c",
        cycles=3,
    )
    await insert(database, row)
    assert await read(database, desk=desk) == [row]
    (read_back,) = await read(database, desk=desk)
    assert read_back.timestamp.isoformat() == "2026-03-12T14:30:00.123456+00:00"


async def test_a_page_as_text_is_the_page(database: Database, desk: str) -> None:
    rows = [
        make_decision(
            desk=desk, timestamp=later(1), agent_votes={"a": 0.1 + 0.2, "b": 1e-17, "c": -1.0}, risk_passed=True
        ),
        make_decision(
            desk=desk, timestamp=later(2.5), summary='"quoted" \\ \n \u2028 ü', risk_reasons=["a", "b: 1"], symbol="A"
        ),
        make_decision(desk=desk, timestamp=later(3.000001), selected_order_id="ord_1", selected_signal_id="sig_1"),
    ]
    await insert(database, *rows)
    for wanted in ({}, {"decision_type": "order_intent"}, {"agent_id": "a"}, {"limit": 2}, {"symbol": "none"}):
        asked = DecisionFilter(desk=desk, **wanted)
        shown = await database.run(partial(page_text, wanted=asked))
        found, same = await database.run(partial(page, wanted=asked))
        assert (json.loads(shown.text), shown.cursor) == ([entry(row) for row in found], same)
        assert shown.database_id == (await database.run(read_id) if found else None)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(votes=st.dictionaries(st.text(max_size=8), st.floats(-1, 1), max_size=4), summary=st.text(max_size=20))
def test_votes_keep_every_bit_and_no_text_blocks_the_log(migrated: Connection, votes: Any, summary: str) -> None:
    row = make_decision(agent_votes=votes, summary=summary)
    insert_decisions(migrated, [row])
    (read_back,), _ = page(migrated, DecisionFilter(limit=1))
    assert read_back.decision_id == row.decision_id
    assert sorted(read_back.agent_votes.values()) == sorted(votes.values())


@pytest.mark.parametrize("hostile", ["a\x00b", "half a pair \ud800", "\x00"])
async def test_text_that_postgresql_refuses_is_replaced_in_every_field(
    database: Database, desk: str, hostile: str
) -> None:
    row = make_decision(
        decision_id=f"{desk}-{hostile}",
        desk=desk,
        summary=hostile,
        risk_reasons=[hostile],
        agent_votes={hostile: 1.0},
        symbol=hostile,
        command_id=hostile,
    )
    assert await insert(database, row) == [row]
    assert await insert(database, row) == []
    (read_back,) = await read(database, agent_id=hostile, desk=desk, symbol=hostile)
    assert hostile not in read_back.summary


async def test_pages_hold_every_row_once_newest_first(database: Database, desk: str) -> None:
    # Several rows a moment: the id decides among them.
    rows = [make_decision(desk=desk, timestamp=later(n // 3)) for n in range(25)]
    await insert(database, *rows)
    newest_first = [row.decision_id for row in reversed(rows)]
    for limit in (1, 4, 24, 25, 26):
        assert await database.run(partial(walk, desk=desk, limit=limit)) == newest_first


async def test_rows_that_arrive_while_pages_are_read_shift_nothing(database: Database, desk: str) -> None:
    old = [make_decision(desk=desk, timestamp=later(n)) for n in range(6)]
    await insert(database, *old)
    first, cursor = await database.run(partial(page, wanted=DecisionFilter(desk=desk, limit=3)))
    await insert(database, make_decision(desk=desk, timestamp=later(99)))
    second = await read(database, desk=desk, limit=3, cursor=cursor)
    assert [r.decision_id for r in first + second] == [r.decision_id for r in reversed(old)]


async def test_each_filter_keeps_what_it_names(database: Database, desk: str) -> None:
    control = make_decision(desk=desk, decision_type="control", timestamp=later(0))
    refused = make_decision(desk=desk, risk_passed=False, symbol="ETHUSDT", timestamp=later(1))
    voted = make_decision(desk=desk, risk_passed=True, agent_votes={"momentum": 0.5, "carry": 0.1}, timestamp=later(2))
    await insert(database, control, refused, voted)
    expected = {
        "decision_type": ("control", [control]),
        "risk_passed": (False, [refused]),
        "symbol": ("ETHUSDT", [refused]),
        "agent_id": ("carry", [voted]),
        "since": (later(1), [voted, refused]),
        "until": (later(1), [control]),
    }
    for name, (value, rows) in expected.items():
        assert await read(database, desk=desk, **{name: value}) == rows, name
    assert await read(database, desk=desk, risk_passed=True, agent_id="momentum", since=later(2), until=later(3))


CHOICES: dict[str, list[Any]] = {
    "decision_type": ["order_intent", "control"],
    "risk_passed": [True, False],
    "symbol": ["BTCUSDT", "ETHUSDT"],
    "agent_id": ["momentum", "carry", "never"],
    "command_id": ["c1"],
    "since": [later(2)],
    "until": [later(5)],
}


def some_rows(desk: str, count: int) -> list[Decision]:
    """Rows of every kind, several a moment."""
    chosen = random.Random(desk)
    return [
        make_decision(
            desk=desk,
            timestamp=later(n // 9),
            decision_type=chosen.choice(list(DecisionType)),
            risk_passed=chosen.choice([True, False, None]),
            symbol=chosen.choice(["BTCUSDT", "ETHUSDT", None]),
            agent_votes=dict.fromkeys(chosen.sample(["momentum", "carry", "other"], chosen.randint(0, 3)), 0.5),
            command_id=chosen.choice(["c1", None]),
        )
        for n in range(count)
    ]


def is_wanted(row: Decision, wanted: dict[str, Any]) -> bool:
    asked = dict(wanted)
    agent, since, until = asked.pop("agent_id", None), asked.pop("since", None), asked.pop("until", None)
    in_time = (since is None or row.timestamp >= since) and (until is None or row.timestamp < until)
    voted = agent is None or agent in row.agent_votes
    return in_time and voted and all(getattr(row, name) == value for name, value in asked.items())


@pytest.mark.parametrize("most_groups", [200, 1], ids=["by groups", "by everybody's rows"])
def test_every_combination_of_filters_finds_exactly_its_rows(
    migrated: Connection, desk: str, most_groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.decisions.MAX_GROUPS", most_groups)
    rows = some_rows(desk, 60)
    insert_decisions(migrated, [*rows, *some_rows(f"{desk}-other", 20)])
    newest_first = list(reversed(rows))
    for names in itertools.chain.from_iterable(itertools.combinations(CHOICES, count) for count in range(5)):
        for values in itertools.product(*(CHOICES[name] for name in names)):
            wanted = dict(zip(names, values, strict=True))
            expected = [row.decision_id for row in newest_first if is_wanted(row, wanted)]
            assert walk(migrated, desk=desk, limit=1000, **wanted) == expected, wanted
            if len(names) < 3:
                assert walk(migrated, desk=desk, limit=4, **wanted) == expected, wanted


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "é", "AAAA", "bm90IGEgdGltZXxh", "MjAyNi0wMS0wMVQwMDowMDowMHxh"])
async def test_a_cursor_that_no_page_gave_out_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await read(database, cursor=cursor)


FILTERS: list[dict[str, Any]] = [
    {},
    {"decision_type": "control"},
    {"decision_type": "no_action"},
    {"risk_passed": True},
    {"risk_passed": False},
    {"symbol": "BTCUSDT"},
    {"symbol": "RAREUSDT"},
    {"symbol": "NEVERUSDT"},
    {"agent_id": "momentum"},
    {"agent_id": "rare"},
    {"agent_id": "never"},
    {"since": later(10), "until": later(40_000)},
    {"symbol": "BTCUSDT", "risk_passed": False},
    {"agent_id": "momentum", "since": later(10)},
    {"agent_id": "momentum", "decision_type": "control"},
    {"agent_id": "momentum", "symbol": "RAREUSDT"},
    {"agent_id": "rare", "symbol": "BTCUSDT"},
    {"agent_id": "rare", "decision_type": "order_intent", "risk_passed": False},
    {"decision_type": "order_intent", "risk_passed": False, "symbol": "RAREUSDT"},
    {"decision_type": "risk_action", "symbol": "BTCUSDT"},
    {"command_id": "command"},
    {"command_id": "command", "decision_type": "control"},
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
@pytest.mark.parametrize("deep", [False, True], ids=["first page", "deep page"])
def test_no_page_reads_more_than_it_shows(big_log: Connection, wanted: dict[str, Any], deep: bool) -> None:
    """Counted in rows that the plan touched, not in time: a plan that sorts or scans shows up on any machine."""
    conditions = DecisionFilter(desk="main", **wanted)
    if deep:
        # From the middle of the log.
        conditions = conditions.model_copy(update={"until": later(ROWS / 2)})
    asked, values = page_statement(big_log, conditions)
    statement = asked.params(values).compile(big_log, compile_kwargs={"render_postcompile": True})
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.string}"
    plan = big_log.exec_driver_sql(explain, statement.params).scalar_one()[0]["Plan"]
    nodes = list(flatten(plan))
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"], plan
    # One walk along the index: what is read and thrown away counts too.
    touched = max(node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0) for node in nodes)
    assert touched <= 51 * 25, plan


def flatten(plan: dict[str, Any]) -> Any:
    yield plan
    for child in plan.get("Plans", []):
        yield from flatten(child)


@pytest.fixture(scope="module")
def big_log(migrated: Connection) -> Connection:
    """50,000 cycles of one desk: `momentum` votes in each, `rare` in few."""
    migrated.execute(
        text(
            """
            INSERT INTO decisions
            SELECT 'decision_' || lpad(to_hex(n), 32, '0'), CAST(:now AS timestamptz) + n * interval '1 second',
                   CASE WHEN n % 997 = 0 THEN 'control' WHEN n % 3 = 0 THEN 'order_intent' ELSE 'no_action' END,
                   'Selected', CASE WHEN n % 997 = 0 THEN '{}' WHEN n % 4999 = 0 THEN '{"momentum": 0.5, "rare": 0.1}'
                   ELSE '{"momentum": 0.5}' END::jsonb, NULL, NULL,
                   CASE WHEN n % 3 = 0 THEN n % 51 <> 0 END, '[]', 'main',
                   CASE WHEN n % 4999 = 0 THEN 'RAREUSDT' WHEN n % 2 = 0 THEN 'BTCUSDT' ELSE 'ETHUSDT' END,
                   CASE WHEN n % 997 = 0 THEN CASE n WHEN 997 THEN 'command' ELSE 'command' || n END END, 1
            FROM generate_series(1, :rows) n
            """
        ),
        {"now": NOW, "rows": ROWS},
    )
    migrated.execute(text("ANALYZE decisions"))
    return migrated
