"""`ais replay` as a person types it: table, JSON, chart, and what it says to a wrong flag or file."""

import json
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from replay import chart
from replay.files import BarsFile, Selection
from tests.deploy.dev_stack import ais
from tests.house.sources import ROOT
from tests.replay.builders import HEADER, SHARED, liquid, made_bars, written

D = Decimal
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = liquid(made_bars(400, step=0.003, fall_at=300, fall=0.02))
    return written(tmp_path_factory.mktemp("bars") / "bars.csv", made)


def run(folder: Path, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return ais("replay", *map(str, arguments), cwd=folder, PYTHONPATH=str(ROOT), **env)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The same command in this process, which saves the imports of one of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **env: CliRunner().invoke(app, ["replay", *map(str, arguments)], env=env)


def test_it_shows_a_table_and_writes_json_and_a_chart(tmp_path: Path, bars: Path) -> None:
    done = run(tmp_path, bars, "--symbol", "btc/usdt")
    assert done.returncode == 0, done.stderr
    for word in (
        "BTCUSDT bars.csv",
        "400, 2022-01-20 00:00 to 2022-01-20 06:39",
        "largest drawdown",
        "selected from",
        "fees",
    ):
        assert word in done.stdout
    assert (tmp_path / "bars.replay.png").read_bytes().startswith(PNG)
    document = json.loads((tmp_path / "bars.replay.json").read_text())
    (only,) = document["runs"]
    assert (document["symbol"], only["bars"], only["interval_seconds"]) == ("BTCUSDT", 400, 60.0)
    assert len(only["equity"]) == 400
    assert len([row for row in only["decisions"] if row["decision_type"] in ("no_action", "order_intent")]) == 400


def test_the_json_can_be_audited_from_its_fills(tmp_path: Path, bars: Path, here: Callable[..., Result]) -> None:
    assert here(bars, "--symbol", "BTCUSDT", "--no-chart").exit_code == 0
    document = json.loads((tmp_path / "bars.replay.json").read_text())
    (only,) = document["runs"]
    assert D(only["summary"]["equity"]) == audited(document)
    assert only["fills"]


def audited(document: dict[str, Any]) -> Decimal:
    """What the account is worth at the end, from its fills and its ledger alone."""
    (only,) = document["runs"]
    held = cash = D(0)
    for fill in only["fills"]:
        signed = D(fill["quantity"]) if fill["side"] == "BUY" else -D(fill["quantity"])
        held += signed
        cash -= signed * D(fill["price"]) + D(fill["fee"])
    ledger = sum((D(entry["amount"]) for entry in only["ledger"]), D(0))
    return D(document["settings"]["balance"]) + cash + ledger + held * D(only["equity"][-1][1])


def test_limits_of_the_command_line_act_and_are_reported(
    tmp_path: Path, bars: Path, here: Callable[..., Result]
) -> None:
    tight = ["hard_drawdown=0.001", "soft_drawdown=0.001", "hard_daily_loss=0.5", "soft_daily_loss=0.5"]
    flags = [part for limit in tight for part in ("--limit", limit)]
    done = here(bars, "--symbol", "BTCUSDT", "--json", "out.json", "--chart", "out.png", *flags)
    assert done.exit_code == 0, done.stderr
    (only,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert only["summary"]["killed"]["kind"] == "killed"
    assert "What limits did" in done.stdout
    first = next(time for time, _, _, drawdown in only["equity"] if float(drawdown) >= 0.001)
    assert only["summary"]["killed"]["time"] == first


def test_a_kill_of_two_limits_is_one_kill_and_that_it_has_flattened_no_warning(
    tmp_path: Path, bars: Path, here: Callable[..., Result]
) -> None:
    tight = [f"{word}_{name}=0.0005" for word in ("soft", "hard") for name in ("drawdown", "daily_loss")]
    flags = [part for limit in tight for part in ("--limit", limit)]
    done = here(bars, "--symbol", "BTCUSDT", "--no-chart", "--agents", "momentum", *flags, AIS_KILL_FLATTENS="true")
    assert done.exit_code == 0, done.stderr
    (only,) = json.loads((tmp_path / "bars.replay.json").read_text())["runs"]
    told = only["summary"]["limits_told"]
    assert told["killed"] == 2
    assert told["warned"] == len([event for event in only["limits"] if " % of its soft limit" in event["summary"]])
    assert only["limits"][-1]["kind"] == "after_kill"
    assert f"warned {told['warned']}, reduced {told['reduced']}, killed 1" in done.stdout


def test_the_json_may_go_to_standard_output_and_what_an_agent_prints_is_not_in_it(tmp_path: Path, bars: Path) -> None:
    (tmp_path / "printer.py").write_text(
        "def talk(bars, book, funding, positions):\n    print('hello')\n    return []\n"
    )
    plugged = tmp_path / "printer-1.dist-info"
    plugged.mkdir()
    (plugged / "METADATA").write_text("Metadata-Version: 2.1\nName: printer\nVersion: 1\n")
    (plugged / "entry_points.txt").write_text("[ais.agents]\nprinter = printer:talk\n")
    flags = ("--symbol", "BTCUSDT", "--agents", "printer", "--json", "-", "--no-chart")
    done = ais("replay", str(bars), *flags, cwd=tmp_path, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert json.loads(done.stdout)["runs"][0]["bars"] == 400
    assert done.stderr.count("hello") == 400
    assert "largest drawdown" in done.stderr
    assert not list(tmp_path.glob("*.replay.*"))


def test_gaps_are_reported(tmp_path: Path, here: Callable[..., Result]) -> None:
    made = made_bars(50)
    path = written(tmp_path / "gaps.csv", [*made[:20], *made[27:40], *made[42:]])
    done = here(path, "--symbol", "BTCUSDT", "--no-chart")
    assert "2, the longest 0:08:00" in done.stdout
    (only,) = json.loads((tmp_path / "gaps.replay.json").read_text())["runs"]
    assert (only["gaps"], only["longest_gap_seconds"]) == (2, 480)


def test_the_account_at_the_end_knows_the_fills_of_the_last_bar(tmp_path: Path, here: Callable[..., Result]) -> None:
    """A kill in the last bar closes positions in it, and no other bar shows what that cost."""
    made = liquid(made_bars(400, step=0.003, fall_at=300, fall=0.02))
    flags = ("--symbol", "BTCUSDT", "--no-chart", "--limit", "soft_drawdown=0.001", "--limit", "hard_drawdown=0.001")
    whole = written(tmp_path / "whole.csv", made)
    assert here(whole, *flags).exit_code == 0
    (only,) = json.loads((tmp_path / "whole.replay.json").read_text())["runs"]
    times = [row[0] for row in only["equity"]]
    last = times.index(only["summary"]["killed"]["time"])
    assert here(written(tmp_path / "cut.csv", made[: last + 1]), *flags).exit_code == 0
    document = json.loads((tmp_path / "cut.replay.json").read_text())
    assert document["runs"][0]["fills"][-1]["bar_no"] == last
    assert D(document["runs"][0]["summary"]["equity"]) == audited(document)


def test_episodes_are_replayed_each_on_a_desk_of_its_own(tmp_path: Path, here: Callable[..., Result]) -> None:
    header = HEADER.replace("open_time_ms,", "open_time_ms,episode,")
    lines = [header]
    for number, bar in enumerate(made_bars(200)):
        name = "2020 first" if number < 120 else "2021 second"
        lines.append(
            f"{int(bar.open_time.timestamp() * 1000)},{name},{bar.open},{bar.high},{bar.low},{bar.close},{bar.volume}"
        )
    (tmp_path / "two.csv").write_text("\n".join(lines))
    assert here("two.csv", "--symbol", "BTCUSDT", "--no-chart").exit_code == 0
    runs = json.loads((tmp_path / "two.replay.json").read_text())["runs"]
    assert [(one["episode"], one["bars"]) for one in runs] == [("2020 first", 120), ("2021 second", 80)]
    assert {one["summary"]["opening_equity"] for one in runs} == {"100000"}
    assert here("two.csv", "--symbol", "BTCUSDT", "--episode", "2021", "--no-chart").exit_code == 0
    assert [one["bars"] for one in json.loads((tmp_path / "two.replay.json").read_text())["runs"]] == [80]


def test_a_chart_of_hundreds_of_episodes_shows_the_first_ones(
    tmp_path: Path, here: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them take minutes and gigabytes, after the replay itself is done."""
    monkeypatch.setattr(chart, "MAX_DRAWN", 1)
    (tmp_path / "days.csv").write_text(f"{HEADER},episode\n" + "".join(f"{n + 1},1,1,1,1,5,{n}\n" for n in range(400)))
    done = here("days.csv", "--symbol", "BTCUSDT", "--agents", "none", "--no-json")
    assert done.exit_code == 0, done.exception
    assert "of the first 1 of 400 episodes" in " ".join(done.stdout.split())
    assert (tmp_path / "days.replay.png").read_bytes().startswith(PNG)


def test_the_name_of_an_episode_means_that_one_though_others_begin_like_it(tmp_path: Path) -> None:
    lines = [f"{HEADER},episode"]
    lines += [f"{number + 1},1,1,1,1,5,{('2020-1', '2020-12', '2021')[number // 10]}" for number in range(30)]
    (tmp_path / "three.csv").write_text("\n".join(lines))

    def taken(episode: str) -> list[str]:
        file = BarsFile(tmp_path / "three.csv", "BTCUSDT", "base", Selection(episode))
        return [stretch.episode for stretch in file.stretches()]

    assert taken("2020-1") == ["2020-1"]
    assert taken("2020") == ["2020-1", "2020-12"]


def test_a_span_of_time_and_the_settings_of_a_desk_count(
    tmp_path: Path, bars: Path, here: Callable[..., Result]
) -> None:
    span = ("--from", "2022-01-20T01:00", "--to", "2022-01-20T02:00")
    settings = {"AIS_PAPER_BALANCE": "5000", "AIS_HARD_LEVERAGE": "4", "AIS_AGENTS": "momentum"}
    assert here(bars, "--symbol", "BTCUSDT", "--no-chart", *span, **settings).exit_code == 0
    document = json.loads((tmp_path / "bars.replay.json").read_text())
    assert document["runs"][0]["bars"] == 60
    assert document["settings"]["agents"] == ["momentum"]
    assert (document["settings"]["balance"], document["settings"]["limits"]["hard_leverage"]) == ("5000", "4")


@pytest.mark.parametrize("spec", ["ETHUSDT={file}", "{file}"])
def test_a_desks_funding_file_of_another_symbol_pays_nothing_here(
    tmp_path: Path, here: Callable[..., Result], spec: str
) -> None:
    """The first symbol's rates were paid on whatever was replayed, and a file for a second symbol ended each replay."""
    (tmp_path / "rates.csv").write_text("funding_time_ms,funding_rate\n1642694400000,0.5\n")
    written(tmp_path / "bars.csv", liquid(made_bars(1_000, step=0.003)))
    settings = {"AIS_PAPER_FUNDING": spec.format(file=tmp_path / "rates.csv"), "AIS_PAPER_FUNDING_RATE": "0.0002"}
    own = "ETHUSDT" if "=" in spec else "BTCUSDT"
    for symbol, paid in ((own, {"0.5"}), ("BTCUSDT" if "=" in spec else "ETHUSDT", {"0.0002"})):
        done = here("bars.csv", "--symbol", symbol, "--no-chart", **settings)
        assert done.exit_code == 0, done.stderr
        (only,) = json.loads((tmp_path / "bars.replay.json").read_text())["runs"]
        assert {entry["rate"] for entry in only["ledger"]} == paid


def test_a_funding_file_of_a_symbol_that_the_desk_does_not_trade_is_taken_for_it(
    tmp_path: Path, bars: Path, here: Callable[..., Result]
) -> None:
    (tmp_path / "rates.csv").write_text("funding_time_ms,funding_rate\n1642694400000,0.5\n")
    rates = {"AIS_PAPER_FUNDING": f"SOLUSDT={tmp_path / 'rates.csv'}"}
    assert here(bars, "--symbol", "SOLUSDT", "--no-chart", "--no-json", **rates).exit_code == 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--limit", "hard_drawdwn=0.1"], "--limit: there is no limit 'hard_drawdwn'; did you mean 'hard_drawdown'?"),
        (["--limit", "hard_drawdown"], "--limit: 'hard_drawdown' is not NAME=VALUE"),
        (["--limit", "hard_drawdown=0.01"], "--limit: soft_drawdown (0.08) is above hard_drawdown (0.01)"),
        (["--balance", "-5"], "--balance: '-5' is not a number above 0"),
        (["--from", "yesterday"], "--from: 'yesterday' is not a time"),
        (["--from", "2030-01-01"], "no bar lies in the episode and the times that you asked for"),
        (["--agents", "momentun"], "AIS_AGENTS names 'momentun', which is not installed"),
        (["--json", "nowhere/out.json"], "--json: nowhere/out.json cannot be written"),
        (["--chart", "nowhere/out.png"], "--chart: nowhere/out.png cannot be written"),
        (["--symbol", "?"], "--symbol: '?' is not a symbol"),
    ],
)
def test_a_wrong_flag_is_one_line_that_says_what_is_allowed(
    tmp_path: Path, bars: Path, flags: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["replay", str(bars), "--symbol", "BTCUSDT", "--quiet", *flags])
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert told in done.stderr


@pytest.mark.parametrize("flag", ["--json", "--chart"])
def test_a_file_that_is_read_is_never_written(
    tmp_path: Path, bars: Path, here: Callable[..., Result], flag: str
) -> None:
    """It was empty before the first bar was replayed."""
    copy = tmp_path / "mine.csv"
    copy.write_bytes(bars.read_bytes())
    done = here("mine.csv", "--symbol", "BTCUSDT", flag, tmp_path / "x/../mine.csv")
    assert done.exit_code == 1
    assert f"{flag}: " in done.stderr
    assert "is a file that the replay reads" in done.stderr
    assert copy.read_bytes() == bars.read_bytes()


def test_the_desks_own_funding_file_is_never_written(tmp_path: Path, bars: Path, here: Callable[..., Result]) -> None:
    rates = tmp_path / "rates.csv"
    rates.write_text("funding_time_ms,funding_rate\n1642694400000,0.0001\n")
    done = here(bars, "--symbol", "BTCUSDT", "--no-chart", "--json", "rates.csv", AIS_PAPER_FUNDING=f"ETHUSDT={rates}")
    assert (done.exit_code, "is a file that the replay reads" in done.stderr) == (1, True)
    assert rates.read_text().startswith("funding_time_ms")


def test_a_wrong_line_is_reported_before_anything_runs(tmp_path: Path, bars: Path, here: Callable[..., Result]) -> None:
    (tmp_path / "wrong.csv").write_text(bars.read_text() + "1642700000000,1,2,3,x,5\n")
    done = here("wrong.csv", "--symbol", "BTCUSDT")
    assert done.exit_code == 1
    assert "wrong.csv, line 402: '1642700000000,1,2,3,x,5' is not a bar; expected a header" in done.stderr
    assert not (tmp_path / "wrong.replay.json").exists()


@pytest.mark.skipif(not SHARED.exists(), reason="the shared market data is not here")
@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "symbol", "volume"),
    [
        ("btc_perp_1m_2022-01-20_24_crash.csv", "BTCUSDT", "quote"),
        ("btceur_1h_crash_episodes.csv", "BTCEUR", "base"),
        ("xrpusdt_perp_5m_2021-11-15_21.csv", "XRPUSDT", "base"),
    ],
)
def test_on_each_crash_no_account_loses_more_than_its_hard_limit_and_one_bar(
    tmp_path: Path, file: str, symbol: str, volume: str
) -> None:
    done = run(tmp_path, SHARED / file, "--symbol", symbol, "--volume", volume, "--no-chart", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    hard = D(document["settings"]["limits"]["hard_drawdown"])
    for one in document["runs"]:
        summary = one["summary"]
        assert D(summary["largest_drawdown"]) <= hard + D(summary["largest_loss_of_a_bar"])


def test_it_needs_neither_temporal_nor_a_database() -> None:
    code = "import sys; import replay.command; sys.exit(any(m.split('.')[0] in ('temporalio', 'psycopg') for m in sys.modules))"
    # settings.py reads Temporal's own settings, and imports its client for that: the engine alone must not.
    code = code.replace("replay.command", "replay.run")
    done: Any = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0
