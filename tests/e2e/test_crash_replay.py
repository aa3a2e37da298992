"""A real crash, bar by bar: decisions, orders, fills and positions agree with each other to the last digit."""

import os
from decimal import Decimal
from pathlib import Path

import pytest

from tests.deploy.dev_stack import wait_until
from tests.e2e.live import Live

pytestmark = pytest.mark.long

BARS = int(os.environ.get("AIS_BARS", "200"))
CRASH = Path(__file__).parents[3] / "shared" / "data" / "btc_perp_1m_2022-01-20_24_crash.csv"
# Its steepest hour lies some 2,000 bars in; those before it are left out of the copy that is replayed.
FIRST_BAR = 1_900


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """The crash where the data is at hand, and else a fall that the test makes itself."""
    file = tmp_path / "bars.csv"
    header = "open_time_ms,open,high,low,close,volume"
    if CRASH.exists():
        lines = CRASH.read_text().splitlines()
        rows = lines[1 + FIRST_BAR :]
    else:
        prices = [Decimal(40_000) - 15 * number + 90 * (number % 7) for number in range(1_000)]
        rows = [f"{60_000 * n},{p},{p + 30},{p - 30},{p},1000" for n, p in enumerate(prices)]
    file.write_text("\n".join([header, *rows]))
    return file


def test_a_replayed_crash_adds_up(live: Live, bars: Path) -> None:
    live.start("--symbols", "BTCUSDT", "--market", f"replay:{bars}")
    wait_until(lambda: live.coordinator().get("cycle_number", 0) >= BARS, f"{BARS} bars", 4 * BARS + 60)
    assert live.post("/control/pause").status_code == 200
    wait_until(lambda: not live.coordinator()["records_waiting"], "all rows written")

    decided = {
        row["selected_order_id"]: row
        for row in live.stack.sql_rows("SELECT * FROM decisions WHERE selected_order_id IS NOT NULL")
    }
    ordered = {row["instruction_id"]: row for row in live.stack.sql_rows("SELECT * FROM instructions")}
    placed = {row["order_id"]: row for row in live.stack.sql_rows("SELECT * FROM paper.orders")}
    fills = live.stack.sql_rows("SELECT * FROM paper.fills")
    assert decided, "the agent proposed nothing in this stretch"
    assert set(ordered) == set(decided), "each decided order is an instruction, and nothing else is"
    confirmed = {name for name, row in ordered.items() if row["outcome"] == "confirmed"}
    own = {name for name, row in placed.items() if row["reason"] == "liquidation"}
    accepted = {name for name, row in placed.items() if row["status"] != "rejected"}
    assert accepted - own == confirmed
    assert {row["order_id"] for row in fills} == {name for name, row in placed.items() if row["filled_quantity"]}
    assert all(row["risk_passed"] for row in decided.values())

    signed = [(row["quantity"] if row["side"] == "BUY" else -row["quantity"], row) for row in fills]
    held = sum((quantity for quantity, _ in signed), Decimal(0))
    positions = live.stack.sql_rows("SELECT * FROM paper.positions WHERE market = 'futures'")
    assert sum((row["quantity"] for row in positions), Decimal(0)) == held
    balance = live.stack.sql_rows("SELECT balance FROM paper.accounts")[0]["balance"]
    earned = sum((row["realised_profit"] - row["fee"] for row in fills), Decimal(0))
    moved = sum((row["amount"] for row in live.stack.sql_rows("SELECT amount FROM paper.ledger")), Decimal(0))
    assert balance == Decimal(100_000) + earned + moved

    observed = live.coordinator()["observation"]
    shown = {row["symbol"]: Decimal(row["quantity"]) for row in observed["positions"]}
    assert shown.get("BTCUSDT", Decimal(0)) == held
    cost = sum((row["cost"] for row in positions), Decimal(0))
    mark = Decimal(observed["marks"]["BTCUSDT"])
    assert Decimal(observed["nav"]) == balance + held * mark - cost
