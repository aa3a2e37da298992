"""Replays: what a file says, or a sentence that names the file, the line and what is expected."""

from decimal import Decimal
from pathlib import Path

import pytest

from activities.market.build import build_market
from activities.market.port import MarketError
from activities.market.replay import COLUMNS, read_bars
from activities.market.simulated import SimulatedMarket

CRASH = Path(__file__).parents[3] / "shared/data/btc_perp_1m_2022-01-20_24_crash.csv"
EPISODES = CRASH.with_name("btceur_1h_crash_episodes.csv")
HEADER = ",".join(COLUMNS)
GOOD = "1642636800000,41723.0,41734.0,41672.0,41677.0,1005143.1506"
SYMBOLS = ["BTCUSDT", "ETHUSDT"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bars.csv"


def write(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_file_feeds_the_first_symbol_and_no_other(file: Path) -> None:
    write(file, HEADER, GOOD, "1642636860000,41677.0,41756.0,41677.0,41737.0,1")
    market = build_market(f"replay:{file}", SYMBOLS, seed=0)
    bar = market.bar("BTCUSDT", 0)
    assert bar
    assert (bar.open_time.isoformat(), bar.close) == ("2022-01-20T00:00:00+00:00", Decimal("41677.0"))
    assert market.bar("BTCUSDT", 2) is market.bar("BTCUSDT", -1) is market.bar("ETHUSDT", 0) is None
    assert market.rules("ETHUSDT") is None
    rules = market.rules("BTCUSDT")
    assert rules
    assert rules.tick_size == Decimal("0.1")
    assert market.warm_up == 0


def test_each_symbol_may_have_its_file(file: Path) -> None:
    write(file, HEADER, GOOD)
    market = build_market(f"replay:eth-usdt={file},BTCUSDT={file}", SYMBOLS, seed=0)
    assert market.bar("BTCUSDT", 0) == market.bar("ETHUSDT", 0) is not None


def test_columns_may_stand_in_any_order_and_more_of_them(file: Path) -> None:
    write(file, "episode," + HEADER, "2020-03 covid," + GOOD, "")
    assert read_bars(file)[0].open == Decimal("41723.0")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "line 1: no column open_time_ms"),
        (["open_time_ms,open,high,low,close"], "line 1: no column volume"),
        ([HEADER], "holds no bar"),
        ([HEADER, GOOD, "1642636860000,41677.0"], r"line 3: '1642636860000,41677.0' is not a bar"),
        ([HEADER, GOOD.replace("41734.0", "high")], "line 2: .* is not a bar"),
        ([HEADER, GOOD.replace("41734.0", "NaN")], "line 2: .* is not a bar"),
        ([HEADER, GOOD.replace("1642636800000", "2022-01-20")], "line 2: .* is not a bar"),
        ([HEADER, GOOD.replace("1642636800000", "9" * 30)], "line 2: .* is not a bar"),
        ([HEADER, GOOD.replace("41734.0", "41000")], "line 2: prices must be above 0"),
        ([HEADER, GOOD.replace("41672.0", "-1")], "line 2: prices must be above 0"),
        ([HEADER, GOOD.replace("1005143.1506", "-1")], "line 2: the volume is negative"),
        ([HEADER, GOOD, GOOD], "line 3: the bar is not later than the one before"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(file: Path, lines: list[str], complaint: str) -> None:
    with pytest.raises(MarketError, match=complaint) as caught:
        read_bars(write(file, *lines))
    assert str(file) in str(caught.value)
    assert HEADER in str(caught.value)


def test_a_file_that_is_missing_or_no_text_is_named(file: Path) -> None:
    with pytest.raises(MarketError, match=r"bars\.csv: cannot be read"):
        read_bars(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MarketError, match=r"bars\.csv: cannot be read"):
        read_bars(file)


@pytest.mark.parametrize("spec", ["", "replay", "replay:", "yahoo", "replay:BTCUSDT=", "replay:A=b,c", "replay:?=x"])
def test_an_unknown_market_is_refused(spec: str) -> None:
    with pytest.raises(MarketError):
        build_market(spec, SYMBOLS, seed=0)


def test_a_file_for_a_symbol_that_the_desk_does_not_trade_is_refused(file: Path) -> None:
    with pytest.raises(MarketError, match="DOGEUSDT is not a symbol of the desk"):
        build_market(f"replay:DOGEUSDT={file}", SYMBOLS, seed=0)


@pytest.mark.parametrize(("data", "count"), [(CRASH, 7200), (EPISODES, 3144)], ids=lambda v: getattr(v, "name", v))
def test_real_files_are_read_whole(data: Path, count: int) -> None:
    if not data.is_file():
        pytest.skip("../shared/data is not beside the project; the twin on generated data runs")
    assert len(read_bars(data)) == count


def test_a_generated_file_is_read_whole(file: Path) -> None:
    market = SimulatedMarket(["BTCUSDT"], 1)
    made = [bar for number in range(500) if (bar := market.bar("BTCUSDT", number))]
    lines = (f"{int(b.open_time.timestamp() * 1000)},{b.open},{b.high},{b.low},{b.close},{b.volume}" for b in made)
    assert read_bars(write(file, HEADER, *lines)) == made
