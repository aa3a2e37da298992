"""Live and shadow, whole: processes of their own, the fake MCP server in another, a kill -9 in the middle; and an agent over
HTTP that is the one of docs/agents.md."""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.dev.ports import free_port
from tests.deploy.dev_stack import wait_until
from tests.e2e.live import Live
from tests.venues.aster.faults import SECRET, SIGNATURE
from tests.venues.aster.running import ROOT

ACCOUNT = "acct-that-must-never-show"
DOCS = (ROOT / "docs/agents.md").read_text()
SYMBOLS = [f"S{number:02}USDT" for number in range(20)]
# Each symbol more is read in each cycle.
FEW = SYMBOLS[:5]
PROPOSAL = {"agent_id": "mine", "symbol": "S00USDT", "side": "BUY", "confidence": 1, "expected_return": 0.05}
LASTING = {"ttl_seconds": 300}


class Venue:
    """The fake MCP server in a process of its own."""

    def __init__(self) -> None:
        self.base = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "tests.venues.aster.fake_server", "--port", str(port), "--account", ACCOUNT]
        self._process = subprocess.Popen(command, cwd=ROOT)
        wait_until(self._answers, "the fake server answers")
        self.control("mark", **dict.fromkeys(SYMBOLS, "100"))

    @property
    def settings(self) -> dict[str, str]:
        there = {"AIS_ASTER_MCP": f"{self.base}/mcp", "AIS_ASTER_ACCOUNT_ID": ACCOUNT}
        return there | {"AIS_AGENTS": "none", "AIS_ORDER_FRACTION": "0.01", "AIS_BOOKS_SECONDS": "10"}

    def control(self, what: str, **switches: Any) -> dict[str, Any]:
        """Changes something there, and tells its state."""
        return dict(httpx.post(f"{self.base}/control/{what}", json=switches, trust_env=False).json())

    @property
    def state(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.base}/control/state", trust_env=False).json())

    def orders(self, symbol: str) -> list[dict[str, Any]]:
        return [order for order in self.state["orders"] if order["symbol"] == symbol]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return bool(self.state)
        return False


@contextlib.contextmanager
def a_desk(folder: Path, mode: str, symbols: list[str] = SYMBOLS, **more: str) -> Iterator[tuple[Live, Venue]]:
    venue, live = Venue(), Live(folder.resolve() / "desk")
    live.stack.settings = {"AIS_MODE": mode, **venue.settings, **more}
    try:
        # Longer than a busy machine takes to decide on twenty symbols: an order is good for one cycle.
        live.start("--symbols", ",".join(symbols), "--cycle-seconds", "4")
        wait_until(lambda: bool(live.coordinator().get("observation")), "the venue is observed")
        yield live, venue
    finally:
        live.clean_up()
        venue.stop()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Venue]]:
    """One live desk for the tests below, which follow each other."""
    # The agent of the documents is heard without being followed.
    more = {"AIS_ENABLE_LIVE_TRADING": "true", "AIS_AGENT_WEIGHTS": "outside=0"}
    with a_desk(tmp_path_factory.mktemp("live"), "live", FEW, **more) as made:
        yield made


def kill_of(live: Live) -> dict[str, Any]:
    found: dict[str, Any] = live.coordinator().get("kill") or {}
    return found


def residue_is_of(live: Live, symbol: str) -> bool:
    """Whether both cancels that fail are named, and nothing of another symbol."""
    residue = kill_of(live)["residue"]
    return len(residue) >= 2 and all(symbol in text for text in residue)


def buy(live: Live, venue: Venue) -> None:
    """One order of S00USDT, by whichever test is the first to want it."""
    if not venue.orders("S00USDT"):
        live.post("/proposals", PROPOSAL | LASTING)
        wait_until(lambda: bool(venue.orders("S00USDT")), "the order is there")


def test_it_trades_there_and_tells_what_the_account_holds(desk: tuple[Live, Venue]) -> None:
    live, venue = desk
    assert live.get("/control/mode").json() == {"default_mode": "live"}
    assert live.get("/health").json()["aster_connected"] is True
    buy(live, venue)
    wait_until(lambda: bool(live.coordinator()["observation"]["positions"]), "the position is read")
    (held,) = live.coordinator()["observation"]["positions"]
    (order,) = venue.orders("S00USDT")
    assert (held["symbol"], float(held["quantity"])) == ("S00USDT", float(order["executedQty"]))


def listed(live: Live, report: str) -> list[Any]:
    """Nothing while the books are not known."""
    answer = live.get(f"/reports/{report}")
    return list(answer.json()) if answer.status_code == 200 else []


@pytest.mark.thorough
def test_its_books_are_those_of_the_exchange(desk: tuple[Live, Venue]) -> None:
    live, venue = desk
    buy(live, venue)
    venue.control("book", kind="FUNDING_FEE", amount="-0.75", symbol="S00USDT")
    wait_until(lambda: bool(listed(live, "ledger") and listed(live, "fills")), "both are known")
    (entry,), (fill,) = live.get("/reports/ledger").json(), live.get("/reports/fills").json()
    (order,), (trade,) = venue.orders("S00USDT"), venue.state["trades"]
    (row,) = [row for row in live.get("/reports/instructions").json() if row["tool"] == "create_order"]
    assert (entry["kind"], entry["amount"], fill["price"], float(fill["fee"])) == (
        "funding", "-0.75", trade["price"], float(trade["commission"]),
    )  # fmt: skip
    assert (fill["order_id"], row["venue_order_id"]) == (row["instruction_id"], str(order["orderId"]))
    found = live.get("/reports/portfolio").json()
    assert (found["differences"], float(found["balance"])) == ([], float(venue.state["wallet"]))
    venue.control("stranger", symbol="S03USDT", side="BUY", quantity="0.1")
    (stranger,) = venue.orders("S03USDT")
    told = f"orders at the exchange that this desk did not send: fill of order {stranger['orderId']} S03USDT"
    wait_until(lambda: told in live.coordinator()["warnings"], "the stranger's order is told")
    assert "fill of order" in live.ais("status").stdout
    assert live.stack.sql("SELECT desk FROM claims") == [("main",)]


def test_an_order_whose_answer_never_came_is_one_order_and_blocks_its_symbol_until_its_fate_is_known(
    desk: tuple[Live, Venue],
) -> None:
    live, venue = desk
    # Carried out at once, answered long after everybody has given up; nor can it be looked up meanwhile.
    venue.control("faults", late={"create_order": 60})
    live.post("/proposals", PROPOSAL | LASTING | {"symbol": "S01USDT"})
    wait_until(lambda: bool(venue.orders("S01USDT")), "the order is there")
    looked_up = dict.fromkeys(("get_all_orders", "get_positions", "get_open_orders"), 503)
    venue.control("faults", errors=looked_up, symbols=["S01USDT"])
    wait_until(lambda: bool(live.coordinator()["unknown_orders"]), "its fate is unknown")
    (order_id,) = live.coordinator()["unknown_orders"]

    def second() -> httpx.Response:
        return live.post("/proposals", PROPOSAL | LASTING | {"symbol": "S01USDT"}, **{"Idempotency-Key": "second"})

    # Judged while the symbol is blocked: taken up later it would be an order like any other, beside the next test's kill.
    wait_until(lambda: second().status_code == 200, "a cycle has taken up the second proposal")

    def refused() -> bool:
        return any(f"order_unknown: {order_id}" in row["risk_reasons"] for row in live.decisions(symbol="S01USDT"))

    # The coordinator answers before the row of a decision without an order is written.
    wait_until(refused, "its row says that the fate of the first is unknown")
    venue.control("faults", errors={"get_all_orders": 503}, symbols=[])
    wait_until(lambda: not live.coordinator()["unknown_orders"], "its fate is known")
    assert len(venue.orders("S01USDT")) == 1

    def rows() -> list[dict[str, Any]]:
        found = live.get("/reports/instructions?limit=1000").json()
        return [row for row in found if row["instruction_id"] == order_id and row["symbol"] == "S01USDT"]

    wait_until(lambda: [row["outcome"] for row in rows()] == ["confirmed"], "its row says what became of it")
    venue.control("faults", late={}, errors={})


def test_the_agent_of_the_documents_votes_in_the_log(desk: tuple[Live, Venue], tmp_path: Path) -> None:
    live, venue = desk
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if "/proposals" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "outside.py").write_text(code.replace("THRESHOLD = 12, 0.0005", "THRESHOLD = 12, 0.0"))
    environment = os.environ | {"API": live.stack.recorded["api_url"], "AIS_API_KEY": live.key}
    agent = subprocess.Popen([sys.executable, "outside.py"], cwd=tmp_path, env=environment)
    marks = itertools.cycle(("100", "100.1", "100.2"))

    def voted() -> bool:
        venue.control("mark", S04USDT=next(marks))
        return bool(live.decisions(agent_id="outside"))

    try:
        wait_until(voted, "its vote is in the log")
        assert agent.poll() is None
    finally:
        agent.kill()
        agent.wait()


def test_a_proposal_over_http_and_one_by_temporal_are_taken_up(desk: tuple[Live, Venue]) -> None:
    live, _ = desk
    proposal = PROPOSAL | LASTING | {"symbol": "S04USDT"}
    sent = live.post("/proposals", proposal, **{"Idempotency-Key": "by-http"})
    assert (sent.status_code, sent.json()["action"]) == (202, "propose_accepted")
    text = json.dumps(proposal | {"agent_id": "cli", "command_id": "by-temporal"})
    done = live.temporal("workflow", "signal", "-w", "coordinator-main", "--name", "propose", "--input", text)
    assert done.returncode == 0, done.stderr
    for command_id in ("by-http", "by-temporal"):
        wait_until(lambda: _is_taken_up(live, command_id), command_id)  # noqa: B023
    assert live.post("/proposals", proposal | {"symbol": "DOGEUSDT"}).status_code == 422


def _is_taken_up(live: Live, command_id: str) -> bool:
    return "taken up by" in live.get(f"/control/commands/{command_id}").text


@pytest.mark.parametrize(
    "seconds", [pytest.param(6, marks=pytest.mark.thorough), pytest.param(30, marks=pytest.mark.long)]
)
def test_a_kill_with_twenty_symbols_outlives_kill_9_of_the_worker_and_a_symbol_that_fails(
    tmp_path: Path, seconds: int
) -> None:
    with a_desk(tmp_path, "live", AIS_ENABLE_LIVE_TRADING="true") as (live, venue):
        _kill_with_twenty_symbols(live, venue, seconds)


def _kill_with_twenty_symbols(live: Live, venue: Venue, seconds: int) -> None:
    for symbol in SYMBOLS:
        venue.control("rest", symbol=symbol)
        venue.control("rest", symbol=symbol, spot=True)
    venue.control("faults", slow={"*": 0.2}, errors={"*": 503}, symbols=["S07USDT"])
    sent, before = venue.state["calls"].get("create_order", 0), len(live.stack.sql("SELECT 1 FROM instructions"))
    began = time.monotonic()
    assert live.kill("flash crash").status_code == 200
    wait_until(lambda: 2 <= kill_of(live).get("confirmed", 0) < 38, "some are confirmed and some are not")
    live.kill_9("worker")
    seen = Counter[str]()

    def all_but_one() -> bool:
        kill = kill_of(live)
        seen[kill.get("progress", "nobody answers")] += 1
        return bool(kill.get("confirmed") == 38)

    wait_until(all_but_one, "all but the symbol that fails are confirmed")
    assert kill_of(live)["progress"] == "38 of 40 cancels confirmed"
    assert any("of 40" in text for text in seen)
    # A reading that began while cancels were under way shows more than is left; the next one does not.
    try:
        wait_until(lambda: residue_is_of(live, "S07USDT"), "what is left is named")
    except AssertionError as error:
        raise AssertionError(f"named instead: {kill_of(live)}") from error
    wait_until(lambda: time.monotonic() - began > seconds, "it has failed for long enough", seconds + 30)
    venue.control("faults", errors={}, symbols=[])
    wait_until(lambda: bool(kill_of(live).get("verified_at")), "verified")
    live.until_quiet()
    assert (kill_of(live)["cancels"], kill_of(live)["confirmed"], kill_of(live)["residue"]) == (40, 40, [])
    rows = live.stack.sql("SELECT instruction_id, outcome FROM instructions WHERE tool LIKE 'cancel%'")
    assert len(rows) == len({id_ for id_, _ in rows}) >= 40
    assert {outcome for _, outcome in rows} == {"confirmed"}
    assert len(live.stack.sql("SELECT 1 FROM instructions")) == before + 40
    state = venue.control("faults", slow={})
    assert [o for o in [*state["orders"], *state["spot_orders"]] if o["status"] == "NEW"] == []
    assert venue.state["calls"].get("create_order", 0) == sent


@pytest.mark.thorough
def test_nothing_secret_is_in_history_database_logs_or_answers(desk: tuple[Live, Venue]) -> None:
    live, venue = desk
    venue.control("faults", errors={"create_order": 400, "get_order_book": 400, "cancel_all_orders": 401})
    live.post("/proposals", PROPOSAL | LASTING | {"symbol": "S02USDT"})
    # What fails and leaves nothing open is done: an outcome is judged by reading it back.
    venue.control("rest", symbol="S02USDT")
    live.post("/control/cancel-all")
    wait_until(
        lambda: any(
            "HTTP 401" in (failing["last_error"] or "") for failing in live.coordinator().get("open_instructions", ())
        ),
        "it fails",
    )
    told = json.dumps(live.coordinator()) + live.get("/reports/instructions").text + live.get("/reports/decisions").text
    assert "HTTP 401" in told
    shown = live.temporal("workflow", "show", "-w", "coordinator-main", "--output", "json").stdout
    assert '"eventType"' in shown
    logs = "".join(path.read_text(errors="replace") for path in live.folder.rglob("*.log"))
    assert "venue call" in logs
    dumped = everything_in_the_database(live)
    assert "instructions" in dumped
    for where, text in {"told": told, "history": shown, "logs": logs, "database": dumped}.items():
        for secret in (ACCOUNT, SECRET, SIGNATURE, live.key):
            assert secret not in text, f"{secret} is in {where}"
    venue.control("faults", errors={})


def everything_in_the_database(live: Live) -> str:
    tables = live.stack.sql(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'paper', 'live')"
    )
    return "".join(f"{table} {live.stack.sql(f'SELECT * FROM {schema}.{table}')}" for schema, table in tables)


@pytest.mark.long
def test_shadow_reads_everything_and_sends_nothing(tmp_path: Path) -> None:
    with a_desk(tmp_path, "shadow") as (live, venue):
        venue.control("position", S03USDT="0.5")
        venue.control("rest", symbol="S04USDT")
        live.post("/proposals", PROPOSAL | LASTING)
        wait_until(lambda: bool(live.decisions(decision_type="order_intent")), "an order is decided")
        wait_until(lambda: bool(live.coordinator()["observation"]["positions"]), "the position is read")
        reduced = live.post("/control/deleverage", {"symbol": "S03USDT", "reduce_pct": 1})
        assert (reduced.status_code, reduced.json()["instruction"]["quantity"]) == (200, 0.5)
        assert live.kill().status_code == 200
        wait_until(lambda: len(live.get("/reports/instructions?limit=1000").json()) == 42, "all is written down")
        rows = live.get("/reports/instructions?limit=1000").json()
        assert {(row["outcome"], row["detail"]) for row in rows} == {("prepared", "shadow: prepared, not sent")}
        assert kill_of(live)["progress"] == "shadow: 40 cancels prepared, none is sent"
        wait_until(lambda: bool(kill_of(live)["residue"]), "the account is read again")
        assert kill_of(live)["residue"] == ["1 open futures order of S04USDT"]
        assert not {"create_order", "cancel_all_orders", "cancel_spot_all_orders"} & venue.state["calls"].keys()


@pytest.mark.long
def test_a_position_from_an_order_that_was_in_flight_when_the_kill_came_is_reported(tmp_path: Path) -> None:
    """What no cancel undoes: the bytes were with the server, which carried them out after the kill was acknowledged."""
    with a_desk(tmp_path, "live", AIS_ENABLE_LIVE_TRADING="true") as (live, venue):
        venue.control("faults", slow={"create_order": 2.5})
        live.post("/proposals", PROPOSAL | LASTING)
        wait_until(lambda: venue.state["calls"].get("create_order", 0) == 1, "the order is with the server")
        assert venue.orders("S00USDT") == []
        assert live.kill().status_code == 200
        wait_until(lambda: bool(kill_of(live).get("verified_at")), "verified")
        (order,) = venue.orders("S00USDT")
        (grown,) = kill_of(live)["grown"]
        assert (grown["symbol"], float(grown["before"]), float(grown["now"])) == (
            "S00USDT",
            0,
            float(order["executedQty"]),
        )
        (warning,) = (
            text for text in live.coordinator()["warnings"] if text.startswith("a position grew after the kill")
        )
        wait_until(lambda: bool(live.decisions(decision_type="risk_action")), "the row is written")
        assert [row["summary"] for row in live.decisions(decision_type="risk_action")] == [f"Kill 1: {warning}"]
        assert warning in live.ais("status").stdout


@pytest.mark.long
def test_no_desk_is_flat_on_the_strength_of_an_empty_list(tmp_path: Path) -> None:
    """The exchange answers the request for positions with `{}`, which the official server turns into `[]`."""
    with a_desk(tmp_path, "live", AIS_ENABLE_LIVE_TRADING="true", AIS_KILL_FLATTENS="true") as (live, venue):
        venue.control("position", S00USDT="0.123", S01USDT="-2.5")
        wait_until(lambda: len(live.coordinator()["observation"]["positions"]) == 2, "the positions are read")
        venue.control("faults", answers={"get_positions": []})
        wait_until(lambda: bool(live.coordinator()["observation_error"]), "the contradiction is told")
        assert "S00USDT: get_positions says 0, get_account_v4 0.123" in live.coordinator()["observation_error"]
        assert live.kill().status_code == 200
        wait_until(lambda: bool(kill_of(live)["flat_at"]) and bool(kill_of(live)["verified_at"]), "it is flat")
        state = venue.state
        assert {symbol: float(held) for symbol, held in state["positions"].items()} == {"S00USDT": 0, "S01USDT": 0}
        assert state["calls"]["create_order"] == 2
        wait_until(lambda: kill_of(live)["residue"] == [], "nothing is left")
