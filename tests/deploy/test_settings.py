"""Settings: where a value comes from, and what a wrong one says."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import settings
import worker
from activities.market.port import MarketError
from activities.metrics import WorkerMetrics
from activities.venues.build import build_venue
from cli.dev.config import Flags
from domain.paper.book import Terms
from domain.risk.limits import Limits
from settings import (
    AgentSettings,
    ApiSettings,
    AsterSettings,
    DatabaseSettings,
    DeskSettings,
    LimitSettings,
    LogSettings,
    PaperVenueSettings,
    Settings,
    WorkerSettings,
    explain,
    temporal_connect_config,
)
from settings.models import MODELS
from storage.database import Database

pytestmark = pytest.mark.usefixtures("no_settings")

GOOD_KEY = "r8Jw_2kd8s7Hqp1Zx93bNMt"


def _running(folder: Path, **recorded: Any) -> Path:
    folder.mkdir()
    stack = {"temporal_address": "127.0.0.1:17233", "temporal_namespace": "default", **recorded}
    (folder / "ports.json").write_text(json.dumps(stack))
    return folder


def _complaint(model: type[Settings]) -> str:
    with pytest.raises(ValidationError) as caught:
        model.load()
    return explain(caught.value)


def test_without_any_setting_it_is_the_main_desk_on_paper() -> None:
    desk = DeskSettings.load()

    assert (desk.desk, desk.mode, desk.symbols) == ("main", "paper", ("BTCUSDT", "ETHUSDT"))
    assert desk.cycle == timedelta(seconds=60)
    assert PaperVenueSettings.load().paper_balance == Decimal(100_000)
    assert LimitSettings.load().limits(desk.cycle) == Limits(max_data_age_seconds=180)


def test_limits_that_contradict_each_other_name_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_HARD_DRAWDOWN", "0.01")
    assert _complaint(LimitSettings) == (
        "AIS_SOFT_DRAWDOWN (0.08) is above AIS_HARD_DRAWDOWN (0.01); give both, with AIS_SOFT_DRAWDOWN <= AIS_HARD_DRAWDOWN"
    )
    monkeypatch.setenv("AIS_SOFT_DRAWDOWN", "0.01")
    assert LimitSettings.load().limits(timedelta(seconds=5)).hard_drawdown == Decimal("0.01")


def test_a_maximum_that_is_lifted_lifts_what_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_MAX_LEVERAGE", "4")
    limits = LimitSettings.load().limits(timedelta(seconds=5))
    assert (limits.soft_leverage, limits.hard_leverage) == (Decimal(4), Decimal(4))


def test_environment_beats_the_running_stack_which_beats_dotenv(
    monkeypatch: pytest.MonkeyPatch, no_settings: Path
) -> None:
    folder = _running(no_settings / "desk", desk="recorded", symbols=["SOLUSDT"], mode="shadow")
    (no_settings / ".env").write_text("AIS_DESK=dotenv\nAIS_SYMBOLS=ADAUSDT\nAIS_CYCLE_SECONDS=7\n")
    monkeypatch.setenv("AIS_DESK", "environment")

    desk = DeskSettings.load(folder)

    assert (desk.desk, desk.symbols, desk.mode) == ("environment", ("SOLUSDT",), "shadow")
    assert desk.cycle_seconds == 7


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_running_stack_is_found_by_its_folder_alone(
    monkeypatch: pytest.MonkeyPatch, no_settings: Path, by_variable: bool
) -> None:
    url = "postgresql+psycopg://postgres@/ais?host=%2Fsocket"
    (no_settings / "key").write_text(GOOD_KEY + "\n")
    folder = _running(no_settings / "desk", database_url=url, api_key_file=str(no_settings / "key"), api_port=8123)
    monkeypatch.setenv("AIS_DATA_DIR", str(folder)) if by_variable else None
    given = None if by_variable else folder

    assert DatabaseSettings.load(given).url == "postgresql+psycopg://postgres@/ais?host=%2Fsocket"
    assert (ApiSettings.load(given).key, ApiSettings.load(given).api_port) == (GOOD_KEY, 8123)
    assert temporal_connect_config(given) == {"target_host": "127.0.0.1:17233", "namespace": "default"}


def test_a_folder_in_which_nothing_runs_is_an_error_and_never_another_desk(no_settings: Path) -> None:
    with pytest.raises(settings.NoRunningStack, match=r"No `ais dev` runs in .*nowhere"):
        DeskSettings.load(no_settings / "nowhere")


def test_temporal_has_its_own_settings_and_may_have_them_in_dotenv(
    monkeypatch: pytest.MonkeyPatch, no_settings: Path
) -> None:
    assert temporal_connect_config()["target_host"] == "127.0.0.1:7233"

    (no_settings / ".env").write_text("TEMPORAL_ADDRESS=dotenv:7233\nTEMPORAL_NAMESPACE=desks\n")
    monkeypatch.setenv("TEMPORAL_ADDRESS", "cloud:7233")

    assert temporal_connect_config() == {"target_host": "cloud:7233", "namespace": "desks"}


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        (DeskSettings, "AIS_DESK", "a desk"),
        (DeskSettings, "AIS_MODE", "real"),
        (DeskSettings, "AIS_SYMBOLS", "BTCUSDT,,ETHUSDT"),
        (DeskSettings, "AIS_SYMBOLS", "BTCUSDT,BTCUSDT"),
        (DeskSettings, "AIS_CYCLE_SECONDS", "0"),
        (DeskSettings, "AIS_CYCLE_SECONDS", "nan"),
        (ApiSettings, "AIS_ACK_TIMEOUT", "-1"),
        (ApiSettings, "AIS_API_PORT", "70000"),
        (ApiSettings, "AIS_CORS_ORIGINS", "*"),
        (WorkerSettings, "AIS_MARKET", "replay:no-such-file.csv"),
        (WorkerSettings, "AIS_SEED", "x"),
        (WorkerSettings, "AIS_MARKET_VOLUME", "lots"),
        (WorkerSettings, "AIS_WORKER_VERSIONING", "on"),
        (WorkerSettings, "AIS_WORKER_DEPLOYMENT", "ais.main"),
        (WorkerSettings, "AIS_WORKER_BUILD_ID", "1.0 beta"),
        (AgentSettings, "AIS_AGENTS", ""),
        (AgentSettings, "AIS_AGENTS", "momentum,momentum"),
        (AgentSettings, "AIS_AGENTS", "momentum,all"),
        (AgentSettings, "AIS_AGENTS", "all,none"),
        (AgentSettings, "AIS_AGENTS", "none,quoter"),
        (AgentSettings, "AIS_AGENTS", "all,all"),
        (AgentSettings, "AIS_AGENTS", "mean reversion"),
        (AgentSettings, "AIS_AGENT_WEIGHTS", "momentum"),
        (AgentSettings, "AIS_AGENT_WEIGHTS", "momentum=-1"),
        (AgentSettings, "AIS_AGENT_WEIGHTS", "momentum=nan"),
        (AgentSettings, "AIS_AGENT_WEIGHTS", "momentum=1,momentum=2"),
        (AgentSettings, "AIS_AGENT_WEIGHTS", "momentum=1,"),
        (AgentSettings, "AIS_AGENT_SECONDS", "0.01"),
        (AgentSettings, "AIS_AGENT_SECONDS", "nan"),
        (PaperVenueSettings, "AIS_PAPER_BALANCE", "0"),
        (PaperVenueSettings, "AIS_PAPER_FEE_BPS", "-1"),
        (AsterSettings, "AIS_ASTER_TIMEOUT", "3.1"),
        (AsterSettings, "AIS_ASTER_TIMEOUT", "0"),
        (AsterSettings, "AIS_ASTER_INTERVAL", "7m"),
        (AsterSettings, "AIS_ASTER_MCP", "http://mcp.example.com/mcp"),
        (AsterSettings, "AIS_ENABLE_LIVE_TRADING", "perhaps"),
        (PaperVenueSettings, "AIS_PAPER_MAKER_FEE_BPS", "10000"),
        (PaperVenueSettings, "AIS_PAPER_VOLUME_SHARE", "0"),
        (PaperVenueSettings, "AIS_PAPER_VOLUME_SHARE", "1.01"),
        (PaperVenueSettings, "AIS_PAPER_LEVERAGE", "0.5"),
        (PaperVenueSettings, "AIS_PAPER_LEVERAGE", "126"),
        (PaperVenueSettings, "AIS_PAPER_FUNDING_RATE", "1"),
        (PaperVenueSettings, "AIS_PAPER_FUNDING_RATE", "NaN"),
        (PaperVenueSettings, "AIS_PAPER_FUNDING", "no-such-file.csv"),
        (LimitSettings, "AIS_MAX_POSITION_FRACTION", "Infinity"),
        (LimitSettings, "AIS_MAX_DATA_AGE_SECONDS", "0"),
        (LogSettings, "AIS_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_wrong_value_is_reported_with_its_variable_and_what_is_allowed(
    model: type[Settings], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIS_API_KEY", GOOD_KEY)
    monkeypatch.setenv(name, value)

    complaint = _complaint(model)

    assert complaint.startswith(f"{name} is {value!r}, which is not allowed. Allowed: ")
    assert "\n" not in complaint


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "tiny-key",
        "changeme-changeme",
        "change-me-please-now",
        "YOUR_AIS_API_KEY_HERE",
        "x" * 40,
        "schlüssel" * 4,
    ],
)
def test_a_missing_weak_or_placeholder_key_is_refused_without_showing_it(
    key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        monkeypatch.setenv("AIS_API_KEY", key)

    complaint = _complaint(ApiSettings)

    assert complaint.startswith("AIS_API_KEY is ")
    assert 'python -c "import secrets; print(secrets.token_urlsafe(32))"' in complaint
    assert not key or key not in complaint


def test_a_good_key_is_accepted_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_API_KEY", GOOD_KEY)

    assert ApiSettings.load().key == GOOD_KEY
    assert GOOD_KEY not in repr(ApiSettings.load())


@pytest.mark.parametrize("url", ["postgresql://u:p%40ss@host:5433/ais", "postgresql+psycopg://u:p%40ss@host:5433/ais"])
def test_a_plain_postgresql_url_gets_our_driver_and_keeps_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIS_DATABASE_URL", url)

    assert DatabaseSettings.load().url == "postgresql+psycopg://u:p%40ss@host:5433/ais"


@pytest.mark.parametrize("url", ["sqlite:///x", "not a url", "postgresql://host:5432", "mysql://u:secret@host/ais"])
def test_another_database_is_refused_without_showing_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_DATABASE_URL", url)

    complaint = _complaint(DatabaseSettings)

    assert complaint.startswith("AIS_DATABASE_URL is set, but not a")
    assert "secret@" not in complaint


def test_symbols_are_written_as_the_http_contract_matches_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_SYMBOLS", "btc/usdt, eth-usdt")

    assert DeskSettings.load().symbols == ("BTCUSDT", "ETHUSDT")


@pytest.mark.parametrize(
    ("variable", "value"), [("AIS_MARKET", "replay:wrong.csv"), ("AIS_PAPER_FUNDING", "BTCUSDT=wrong.csv")]
)
def test_a_file_that_holds_something_else_is_reported_with_its_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, no_settings: Path
) -> None:
    (no_settings / "wrong.csv").write_text("date,price\n")
    monkeypatch.setenv("AIS_DATABASE_URL", "postgresql://u@host/ais")
    monkeypatch.setenv(variable, value)
    config = worker.Config.load()
    database = Database(config.database.url, application_name="ais-test")

    with pytest.raises(MarketError, match=rf"^{variable}: wrong\.csv, line 1: no column \w+; expected a header"):
        build_venue(worker.plan_of(config), database, WorkerMetrics("main"))
    database.close()


def test_the_paper_venues_terms_are_those_of_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PaperVenueSettings.load().terms() == Terms(fee_bps=Decimal(4), slippage_bps=Decimal(2))

    for name in ("FEE_BPS", "MAKER_FEE_BPS", "SLIPPAGE_BPS", "LEVERAGE", "VOLUME_SHARE"):
        monkeypatch.setenv(f"AIS_PAPER_{name}", "1")

    one = Decimal(1)
    assert PaperVenueSettings.load().terms() == Terms(
        fee_bps=one, maker_fee_bps=one, slippage_bps=one, leverage=one, volume_share=one
    )


def test_agents_are_all_that_are_installed_and_count_alike_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    default = AgentSettings.load()
    assert (default.agents, default.agent_weights, default.agent_seconds) == (("all",), {}, 1.0)

    monkeypatch.setenv("AIS_AGENTS", "momentum, my-agent.v2")
    monkeypatch.setenv("AIS_AGENT_WEIGHTS", "momentum=1, my-agent.v2=0.5,quiet=0")
    chosen = AgentSettings.load()

    assert chosen.agents == ("momentum", "my-agent.v2")
    assert chosen.agent_weights == {"momentum": 1.0, "my-agent.v2": 0.5, "quiet": 0.0}


def test_all_agents_and_quoter_may_be_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_AGENTS", "all, quoter")

    assert AgentSettings.load().agents == ("all", "quoter")


@pytest.mark.parametrize(
    ("mode", "named", "expected"),
    [("paper", None, "all,quoter"), ("paper", "momentum", None), ("shadow", None, None), ("live", None, None)],
)
def test_ais_dev_has_orders_that_rest_on_paper_unless_somebody_names_the_agents(
    monkeypatch: pytest.MonkeyPatch, mode: str, named: str | None, expected: str | None
) -> None:
    monkeypatch.setenv("AIS_MODE", mode)
    if named:
        monkeypatch.setenv("AIS_AGENTS", named)

    assert Flags().resolve().desk_settings().get("AIS_AGENTS") == expected


def test_an_empty_weight_is_none_as_compose_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_AGENT_WEIGHTS", "")

    assert AgentSettings.load().agent_weights == {}


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, no_settings: Path) -> None:
    """`AIS_ACK_TIMEOUT=` in .env, which compose hands on, kept the API from starting; an empty AIS_DATA_DIR kept a kill."""
    (no_settings / ".env").write_text(
        f"AIS_DESK=dotenv\nAIS_API_KEY={GOOD_KEY}\nAIS_DATABASE_URL=postgresql://u@h/ais\nAIS_SEED=\n"
    )
    models = [model for model in MODELS if model is not AgentSettings]
    before = [model.load() for model in models]
    for setting in settings.catalogue():
        monkeypatch.setenv(setting.variable, "")
    assert [model.load() for model in models] == before
    assert (DeskSettings.load().desk, settings.origin("desk"), settings.origin("seed")) == ("dotenv", ".env", None)
    assert DeskSettings.load(_running(no_settings / "desk", desk="recorded")).desk == "recorded"


def test_an_empty_variable_of_temporal_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, no_settings: Path) -> None:
    """Of an empty TEMPORAL_API_KEY or TEMPORAL_TLS the SDK made a connection with TLS, which no server took."""
    for name in ("ADDRESS", "NAMESPACE", "API_KEY", "TLS"):
        monkeypatch.setenv(f"TEMPORAL_{name}", "")
    assert temporal_connect_config() == {"target_host": "127.0.0.1:7233", "namespace": "default"}
    (no_settings / ".env").write_text("TEMPORAL_ADDRESS=dotenv:7233\n")
    assert temporal_connect_config()["target_host"] == "dotenv:7233"
    assert temporal_connect_config(_running(no_settings / "desk"))["target_host"] == "127.0.0.1:17233"


def test_a_misspelt_variable_can_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_CYCLE_SECOND", "5")

    assert settings.unknown_variables() == ["AIS_CYCLE_SECOND"]


def test_importing_the_settings_reads_nothing() -> None:
    wrong = {**os.environ, "AIS_CYCLE_SECONDS": "nonsense", "AIS_DATA_DIR": "/nowhere"}

    subprocess.run([sys.executable, "-c", "import settings"], check=True, env=wrong)


def test_a_development_stack_leaves_versions_of_workers_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would make the version current there, and the desk would stand still."""
    monkeypatch.setenv("AIS_WORKER_VERSIONING", "pinned")
    assert Flags().resolve().desk_settings()["AIS_WORKER_VERSIONING"] == "off"
    monkeypatch.delenv("AIS_WORKER_VERSIONING")
    (tmp_path / ".env").write_text("AIS_WORKER_VERSIONING=pinned\n")
    monkeypatch.chdir(tmp_path)
    assert WorkerSettings.load().worker_versioning == "pinned"
    by_hand = WorkerSettings.load(_running(tmp_path / "desk", worker_versioning="off"))
    assert by_hand.worker_versioning == "off"


def test_a_dotenv_in_another_encoding_is_one_line_and_no_traceback(no_settings: Path) -> None:
    """`ais kill` in a folder with such a file ended in a traceback, and nothing told that another folder would do."""
    (no_settings / ".env").write_bytes("# caf\u00e9\nAIS_DESK=main\n".encode("latin-1"))
    with pytest.raises(settings.NotConfigured, match=r"\.env cannot be read: .* or run this in another folder"):
        settings.DeskName.load()


def test_a_record_of_a_running_stack_that_is_cut_off_is_one_line(no_settings: Path) -> None:
    (no_settings / "ports.json").write_text('{"temporal_address": ')
    with pytest.raises(settings.NotConfigured, match=r"ports\.json cannot be read"):
        temporal_connect_config(no_settings)


def test_the_home_of_a_user_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(settings.NotConfigured, match="names no folder"):
        temporal_connect_config(Path("~nobody-of-that-name/x"))
