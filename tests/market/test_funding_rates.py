"""Funding rates: one for everything, or what a file says an exchange once paid."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from activities.market.build import build_funding
from activities.market.funding import COLUMNS, read_funding
from activities.market.port import MarketError

XRP = Path(__file__).parents[3] / "shared/data/xrpusdt_perp_funding_8h_2021-11-18_12-18.csv"
HEADER = ",".join(COLUMNS)
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
MIDNIGHT, MORNING = datetime(2021, 11, 18, tzinfo=UTC), datetime(2021, 11, 18, 8, tzinfo=UTC)
RATE = Decimal("0.0001")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "funding.csv"


def write(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines) + "\n")
    return file


def test_without_a_file_one_rate_holds_for_every_symbol_and_hour() -> None:
    funding = build_funding("", SYMBOLS, RATE)
    assert funding.rate("BTCUSDT", MIDNIGHT) == funding.rate("DOGEUSDT", MORNING) == RATE


def test_a_files_stamps_belong_to_the_nearest_funding_hour(file: Path) -> None:
    write(file, HEADER, "1637193600017,0.0002", "1637222399993,-0.0003")
    assert read_funding(file) == {MIDNIGHT: Decimal("0.0002"), MORNING: Decimal("-0.0003")}


def test_a_symbol_with_a_file_has_no_other_rate(file: Path) -> None:
    """An hour that the file lacks is not known, and nothing is guessed."""
    write(file, HEADER, "1637193600017,0.0002")
    funding = build_funding(f"eth-usdt={file}", SYMBOLS, RATE)
    assert funding.rate("ETHUSDT", MIDNIGHT) == Decimal("0.0002")
    assert funding.rate("ETHUSDT", MORNING) is None
    assert funding.rate("BTCUSDT", MORNING) == RATE


def test_a_single_file_is_for_the_first_symbol(file: Path) -> None:
    write(file, f"symbol,{HEADER}", "BTC,1637193600017,0.0002", "")
    funding = build_funding(str(file), SYMBOLS, RATE)
    assert funding.rate("BTCUSDT", MIDNIGHT) == Decimal("0.0002")
    assert funding.rate("ETHUSDT", MIDNIGHT) == RATE


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "line 1: no column funding_time_ms"),
        (["funding_time_ms"], "line 1: no column funding_rate"),
        ([HEADER], "holds no rate"),
        ([HEADER, "1637193600017"], "line 2: '1637193600017' is not a funding rate"),
        ([HEADER, "yesterday,0.1"], "line 2: .* is not a funding rate"),
        ([HEADER, f"{'9' * 30},0.1"], "line 2: .* is not a funding rate"),
        ([HEADER, "1637193600017,x"], "line 2: .* is not a funding rate"),
        ([HEADER, "1637193600017,NaN"], "line 2: .* is not a funding rate"),
        ([HEADER, "1637193600017,1"], "line 2: .* is not a funding rate"),
        ([HEADER, "1637193600017,0", "1637193600000,0"], "line 3: a second rate for 2021-11-18T00:00:00"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(file: Path, lines: list[str], complaint: str) -> None:
    with pytest.raises(MarketError, match=complaint) as caught:
        read_funding(write(file, *lines))
    assert str(file) in str(caught.value)
    assert HEADER in str(caught.value)


@pytest.mark.parametrize("spec", ["no-such-file.csv", "BTCUSDT=", "A=b,c", "DOGEUSDT=funding.csv"])
def test_a_spec_that_cannot_be_used_is_refused(spec: str) -> None:
    with pytest.raises(MarketError):
        build_funding(spec, SYMBOLS, RATE)


def test_a_real_file_is_read_whole() -> None:
    if not XRP.is_file():
        pytest.skip("../shared/data is not beside the project; the twins above run on generated files")
    rates = read_funding(XRP)
    assert (len(rates), min(rates.values())) == (91, Decimal("-0.0021933400000000002"))
