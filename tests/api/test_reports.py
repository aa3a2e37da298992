"""The decision log over HTTP."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from api.errors import InvalidRequest, ReportsUnavailable
from api.reporting import PostgresReports
from domain.trading.decisions import DecisionType
from storage.database import Database
from storage.decisions import insert_decisions
from tests.api.test_control import entries
from tests.api.world import NOW, World, make_decision

PATH = "/reports/decisions"


async def test_an_entry_has_exactly_the_nine_keys(world: World) -> None:
    world.reports.rows = [
        make_decision(
            decision_id="decision_0190f3",
            timestamp=NOW,
            decision_type=DecisionType.ORDER_INTENT,
            summary="Selected BTCUSDT from funding_rate",
            agent_votes={"funding_rate": 0.85, "momentum": 0.62},
            selected_signal_id="sig_1",
            selected_order_id="ord_1",
            risk_passed=True,
            risk_reasons=["approved"],
            symbol="BTCUSDT",
        )
    ]
    assert (await world.client.get(PATH)).json() == [
        {
            "decision_id": "decision_0190f3",
            "timestamp": "2026-03-12T14:30:00+00:00",
            "decision_type": "order_intent",
            "summary": "Selected BTCUSDT from funding_rate",
            "agent_votes": {"funding_rate": 0.85, "momentum": 0.62},
            "selected_signal_id": "sig_1",
            "selected_order_id": "ord_1",
            "risk_passed": True,
            "risk_reasons": ["approved"],
        }
    ]


async def test_every_filter_reaches_the_log_of_this_desk(world: World) -> None:
    query: dict[str, Any] = {
        "limit": 7, "cursor": "abc", "decision_type": "control", "risk_passed": "false", "agent_id": "momentum",
        "symbol": "btc/usdt", "since": "2026-03-12T14:30:00+00:00", "until": "2026-03-13T00:00:00Z",
    }  # fmt: skip
    assert (await world.client.get(PATH, params=query)).status_code == 200
    (asked,) = world.reports.asked
    assert asked.model_dump() == {
        "limit": 7, "cursor": "abc", "decision_type": DecisionType.CONTROL, "risk_passed": False,
        "agent_id": "momentum", "symbol": "BTCUSDT", "since": NOW, "until": datetime(2026, 3, 13, tzinfo=UTC),
        "desk": "main", "command_id": None,
    }  # fmt: skip


async def test_the_default_page_is_50_rows(world: World) -> None:
    await world.client.get(PATH)
    assert world.reports.asked[0].limit == 50


async def test_a_plus_that_curl_did_not_escape_is_read_as_one(world: World) -> None:
    assert (await world.client.get(f"{PATH}?since=2026-03-12T14:30:00+00:00")).status_code == 200
    assert world.reports.asked[0].since == NOW


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "limit=x", "since=2026-03-12", "since=2026-03-12T14:30:00", "until=1700000000",
        "until=now", "decision_type=other", "risk_passed=perhaps", "symbol=%3F", "agent_id=", "agent_id=%00",
        "cursor=%00", "order=asc", "Limit=5", "since=0001-01-01T00:00:00%2B23:59",
    ],
)  # fmt: skip
async def test_an_unknown_or_invalid_parameter_is_422(world: World, query: str) -> None:
    (entry,) = entries(await world.client.get(f"{PATH}?{query}"))
    assert entry["loc"][0] == "query"
    assert world.reports.asked == []


async def test_the_next_page_is_a_link_that_keeps_the_filters(world: World) -> None:
    world.reports.next_cursor = "next-1"
    response = await world.client.get(
        PATH, params={"limit": 1, "symbol": "BTCUSDT", "since": "2026-03-12T14:30:00+00:00"}
    )
    assert response.headers["Link"].endswith('>; rel="next"')
    link = urlsplit(response.links["next"]["url"])
    assert link.path == PATH
    assert parse_qs(link.query) == {
        "limit": ["1"], "symbol": ["BTCUSDT"], "since": ["2026-03-12T14:30:00+00:00"], "cursor": ["next-1"],
    }  # fmt: skip
    world.reports.next_cursor = None
    assert "Link" not in (await world.client.get(response.links["next"]["url"])).headers


async def test_a_lost_database_is_503_and_says_so(world: World) -> None:
    world.reports.error = ReportsUnavailable(Exception("PostgreSQL did not answer"))
    response = await world.client.get(PATH)
    assert response.status_code == 503
    assert "PostgreSQL" in response.json()["detail"]


async def test_a_hanging_database_does_not_touch_the_kill(world: World) -> None:
    world.reports.hangs = True
    assert (await world.client.post("/control/kill-switch")).status_code == 200


async def test_pages_of_a_real_database_walk_the_whole_log_once(world: World, database_url: str) -> None:
    writer = Database(database_url, threads=1, application_name="test")
    rows = [make_decision(number, desk="main") for number in range(7)]
    await writer.run(lambda connection: insert_decisions(connection, [*rows, make_decision(99, desk="other")]))
    writer.close()
    reports = PostgresReports(database_url)
    world.reports.log = reports
    seen, url = [], f"{PATH}?limit=3"
    while url:
        response = await world.client.get(url)
        seen += [entry["decision_id"] for entry in response.json()]
        url = response.links.get("next", {}).get("url", "")
    assert seen == [row.decision_id for row in reversed(rows)]
    assert entries(await world.client.get(f"{PATH}?cursor=nonsense"))[0]["loc"] == ["query", "cursor"]
    assert await reports.can_write() is True
    reports.close()


async def test_a_database_that_refuses_connections_is_503_and_not_ready() -> None:
    reports = PostgresReports("postgresql+psycopg://nobody:nothing@127.0.0.1:1/none")
    assert await reports.can_write() is False
    with pytest.raises(ReportsUnavailable):
        await reports.page(make_filter())
    reports.close()


def make_filter() -> Any:
    from storage.decisions import DecisionFilter

    return DecisionFilter()


def test_our_own_422_has_the_form_of_fastapi() -> None:
    assert InvalidRequest(("query", "cursor"), "no").body == {
        "detail": [{"loc": ["query", "cursor"], "msg": "no", "type": "value_error"}]
    }
