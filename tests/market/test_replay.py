"""Replays: what a file says, or a sentence that names the file, the line and what is expected."""

from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.agents.port import columns_of
from activities.market import lines as reading
from activities.market.build import build_market
from activities.market.port import MarketError
from activities.market.replay import (
    BARS_A_BLOCK,
    COLUMNS,
    Steps,
    _numbers,
    iter_bars,
    iter_blocks,
    iter_checked,
    iter_episodes,
    milliseconds,
    read_bars,
    rules_of,
)
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


@pytest.mark.parametrize(
    ("prices", "tick"),
    [
        ("41677.0,41756.0,41677.0,41737.0", "0.1"),
        ("41677.00000000,41756.00000000,41677.00000000,41737.00000000", "0.1"),
        ("41677,41756.25,41677,41737.5", "0.01"),
        ("1.1953999999999998,1.1991,1.1934,1.1971", "0.0001"),
        ("0.00002110,0.00002115,0.00002109,0.00002112", "0.00000001"),
    ],
)
def test_the_tick_is_the_finest_traded_price(file: Path, prices: str, tick: str) -> None:
    bars = read_bars(write(file, HEADER, f"1642636800000,{prices},1"))
    assert rules_of("X", bars).tick_size == Decimal(tick)


def test_a_price_that_was_a_double_is_the_traded_one(file: Path) -> None:
    (bar,) = read_bars(write(file, HEADER, "1642636800000,1.1953999999999998,1.1991,1.1934,1.1970000000000001,1"))
    assert (bar.open, bar.close) == (Decimal("1.1954"), Decimal("1.197"))


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
        ([HEADER, GOOD.replace("1642636800000", "1642636800")], "line 2: 1642636800 looks like seconds"),
        (
            [HEADER, GOOD.replace("1005143.1506", "1e31")],
            "to 1E.18, and the volume at most 1E.30",
        ),
        ([HEADER, "1642636800000,1e90,1e90,1e90,1e90,1"], "line 2: prices must be from 1E-18"),
        ([HEADER, "1642636800000,1e-400,1e-400,1e-400,1e-400,1"], "line 2: prices must be from 1E-18"),
        ([HEADER, GOOD, GOOD], "line 3: the bar is not later than the one before"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(file: Path, lines: list[str], complaint: str) -> None:
    with pytest.raises(MarketError, match=complaint) as caught:
        read_bars(write(file, *lines))
    assert str(file) in str(caught.value)
    assert HEADER in str(caught.value)


def test_a_byte_order_mark_as_spreadsheets_write_it_is_no_part_of_the_first_column(file: Path) -> None:
    file.write_text(f"\ufeff{HEADER}\n{GOOD}\n", encoding="utf-8")
    assert len(read_bars(file)) == 1


def test_a_file_is_read_bar_by_bar_and_complains_when_it_comes_to_it(file: Path) -> None:
    """A replay of a hundred thousand bars holds one of them at a time."""
    bars = iter_bars(write(file, HEADER, GOOD, GOOD))
    assert next(bars).open == Decimal("41723.0")
    with pytest.raises(MarketError, match="line 3: the bar is not later"):
        next(bars)


def test_a_volume_in_quote_currency_is_divided_by_the_close(file: Path) -> None:
    write(file, HEADER, "0,2,4,1,3,10", "60000,3,3,3,3,0")
    assert [bar.volume for bar in read_bars(file, "quote")] == [Decimal("3.333333333333"), 0]
    assert [bar.volume for bar in read_bars(file)] == [10, 0]
    market = build_market(f"replay:{file}", SYMBOLS, seed=0, volume="quote")
    bar = market.bar("BTCUSDT", 0)
    assert bar
    assert bar.volume == Decimal("3.333333333333")


def test_a_file_may_say_itself_that_it_counts_quote_currency(file: Path) -> None:
    header = HEADER.replace("volume", "quote_volume")
    assert read_bars(write(file, header, "0,2,4,1,4,10"))[0].volume == Decimal("2.5")
    both = read_bars(write(file, f"{HEADER},quote_volume", "0,2,4,1,4,10,99"))
    assert both[0].volume == 10


def test_a_huge_volume_is_still_a_number(file: Path) -> None:
    (bar,) = read_bars(write(file, HEADER, "0,2,4,1,3,1e25"), "quote")
    assert bar.volume > 10**24


def test_rules_come_from_one_pass_over_the_bars(file: Path) -> None:
    write(file, HEADER, "0,2000,4000,1000,3000,1", "60000,3,3.25,3,3,0")
    rules = rules_of("BTCUSDT", iter_bars(file))
    assert (rules.tick_size, rules.lot_step) == (Decimal("0.01"), Decimal("0.01"))
    with pytest.raises(MarketError, match="no bar of BTCUSDT"):
        rules_of("BTCUSDT", [])


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


# --- checked without making bars --------------------------------------------------------------------------------------


def read_whole(path: Path) -> Any:
    """Each bar's episode and time, and the steps; or what is wrong."""
    steps: defaultdict[str, Steps] = defaultdict(Steps)
    try:
        times = []
        for episode, bar in iter_episodes(path):
            steps[episode].add(bar)
            times.append((episode, milliseconds(bar.open_time)))
        return times, {episode: found.rules("X") for episode, found in steps.items()}
    except MarketError as error:
        return str(error)


def checked(path: Path) -> Any:
    """The same, by the quick check, a line or two at a time."""
    steps: defaultdict[str, Steps] = defaultdict(Steps)
    try:
        with patch.object(reading, "BLOCK_CHARS", 60):
            times = [(name, at) for name, found in iter_checked(path, "base", steps) for at in found]
        return times, {episode: found.rules("X") for episode, found in steps.items()}
    except MarketError as error:
        return str(error)


def line_by_line(path: Path) -> Any:
    """Each bar as it is written, and its episode; or what is wrong."""
    try:
        return [(episode, vars(bar), str(vars(bar))) for episode, bar in iter_episodes(path)]
    except MarketError as error:
        return str(error)


def in_blocks(path: Path) -> Any:
    """The same, some bars at once."""
    try:
        with patch.object(reading, "BLOCK_CHARS", 60):
            found = [*iter_blocks(path)]
    except MarketError as error:
        return str(error)
    for block in found:
        for one, other in zip(block.columns or (), columns_of(block.bars).columns, strict=block.columns is not None):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
    return [(block.episode, vars(bar), str(vars(bar))) for block in found for bar in block.bars]


PRICES = [
    "99.9",
    "100.1",
    "100.2",
    "100.25",
    "100.30",
    "101",
    "100.10000000000001",
    "1e2",
    "1_00.1",
    " 100.1",
    "-1.5",
    '"100.1"',
    '"100.1',
]
TRADED = ["0", "1", "0.0", "-0.0", "-1e-400", "1e-400", "1e30", "1e31", "nan", "2.5"]
usual = st.sampled_from(PRICES[:3])


@given(
    rows=st.lists(st.tuples(st.sampled_from([60_000, 60_000, 1]), usual, usual, st.sampled_from("ab")), max_size=8),
    odd=st.none()
    | st.tuples(st.integers(1, 5), st.sampled_from(PRICES + TRADED + ["", "inf", "x", "253402300800000"])),
)
def test_the_quick_check_of_a_file_finds_what_reading_it_finds(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str, str, str]], odd: tuple[int, str] | None
) -> None:
    time, lines = 1_642_636_800_000, [HEADER + ",episode"]
    for step, one, other, episode in rows:
        time += step
        low, high = sorted((one, other), key=float)
        lines.append(f"{time},{one},{high},{low},{other},1,{episode}")
    if odd and rows:
        cells = lines[-1].split(",")
        cells[odd[0]] = odd[1]
        lines[-1] = ",".join(cells)
    file = write(tmp_path_factory.getbasetemp() / "checked.csv", *lines)
    assert checked(file) == read_whole(file)
    assert in_blocks(file) == line_by_line(file)


@pytest.mark.parametrize("traded", TRADED)
@pytest.mark.parametrize("time", ["1642636860000", "1642636800000", "253402300800000", "-1", "1642636860000.5"])
def test_the_quick_check_takes_no_odd_line(file: Path, traded: str, time: str) -> None:
    write(file, HEADER, "1642636800000,99.9,100.1,99.9,100.1,1", f"{time},99.9,100.1,99.9,100.1,{traded}")
    assert checked(file) == read_whole(file)
    assert in_blocks(file) == line_by_line(file)


@given(digits=st.integers(1, 14), whole=st.lists(st.integers(1, 10**15 - 1), min_size=1))
def test_prices_are_read_many_at_once_as_one_by_one(digits: int, whole: list[int]) -> None:
    texts = [f"{number:0{digits + 1}d}" for number in whole]
    texts = [f"{text[:-digits]}.{text[-digits:]}" for text in texts]
    assert _numbers(texts, digits).tolist() == [float(text) for text in texts]


@pytest.mark.parametrize("odd", ["", "1", " ", "1642636860000,1.123456789012345,2,1,2,1"])
def test_a_block_may_begin_with_any_line(file: Path, odd: str) -> None:
    times = range(1_642_636_920_000, 1_642_637_520_000, 60_000)
    lines = [odd, *(f"{time},99.9,100.1,99.9,100.1,1" for time in times)]
    write(file, HEADER, "1642636800000,99.9,100.1,99.9,100.1,1", *lines)
    assert in_blocks(file) == line_by_line(file)


def test_most_bars_are_read_in_blocks(file: Path) -> None:
    """Some hundred at once; those of a quoted cell line by line, however many there are."""
    time, lines = 1_642_636_800_000, [HEADER]
    lines += [f"{time + 60_000 * number},99.9,100.1,99.9,100.1,1" for number in range(3_000)]
    blocks = [*iter_blocks(write(file, *lines))]
    assert sum(len(block.bars) for block in blocks if block.columns) > 2_000
    lines[-1] = lines[-1].replace(",1", ',"1"')
    lines[1] = lines[1].replace("99.9", '"99.9"')
    quoted = [*iter_blocks(write(file, *lines))]
    assert max(len(block.bars) for block in quoted) <= BARS_A_BLOCK
    assert sum(len(block.bars) for block in quoted) == sum(len(block.bars) for block in blocks) == 3_000
