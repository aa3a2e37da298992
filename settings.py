"""Every setting of AIS: its variable, unit, default and what is allowed.

One model a concern; a process loads the ones it needs. Nothing is read when this module is imported.

Where a value comes from, the first that has one:

1. the environment (`AIS_DESK=main`),
2. a running `ais dev`, where its data folder was named by `--data-dir` or `AIS_DATA_DIR`,
3. the file `.env` in the working directory,
4. the default.

The folder stands above `.env`, because whoever names it means the desk that runs there, and a `.env` written for
another deployment must not split one desk over two databases. A wrong value is an error that names the variable, the
value and what is allowed: see `explain`.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from temporalio.envconfig import ClientConfig, ClientConnectConfig

from domain.limits import Limits
from domain.paper.book import Terms
from domain.proposals import AGENT_ID

PREFIX = "AIS_"
DOTENV = Path(".env")
PORTS_FILE = "ports.json"

HOW_TO_MAKE_A_KEY = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
MIN_KEY_CHARS = 16
LIVE_KEY_CHARS = 32
LIVE_KEY = f"an AIS_API_KEY of {LIVE_KEY_CHARS} characters or more"
# Matched against the key in lower case without punctuation: `change-me-please`, `your_ais_api_key_here`, `xxxxxxxx`.
PLACEHOLDER = re.compile(
    r"(please|change|replace|insert|me|this|with|the|a|an|your|my|ais|api|key|secret|password|token|placeholder|example"
    r"|here|now|x+)+\d{0,4}"
)

Mode = Literal["paper", "shadow", "live"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BasisPoints = Annotated[Decimal, Field(ge=0, lt=10_000, allow_inf_nan=False)]


class NotConfigured(Exception):
    """What connects this process cannot be made out; the text says what is wrong."""


class WrongTemporalSettings(NotConfigured):
    """Temporal's own settings cannot be read: a profile, its file, or a certificate that they name."""

    def __init__(self, error: Exception) -> None:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        super().__init__(
            f"Temporal's settings cannot be read: {first}. Check the TEMPORAL_ variables and the file that they name"
        )


class NoRunningStack(NotConfigured):
    """A data folder was named in which no `ais dev` has recorded itself."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"No `ais dev` runs in {data_dir} (it has no {PORTS_FILE}). Start it: ais dev --data-dir {data_dir}"
        )


class Settings(BaseSettings):
    """The base of all models below: one place for the prefix, for `.env`, and for what a running `ais dev` recorded."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=DOTENV, extra="ignore", frozen=True)

    used_by: ClassVar[str] = ""
    recorded_as: ClassVar[Mapping[str, str]] = {}
    """Our field -> the key under which `ais dev` records its value in ports.json."""

    @classmethod
    def load(cls, data_dir: Path | None = None) -> Self:
        """Read this model. Raises ValidationError (see `explain`) or NoRunningStack."""
        recorded = running_stack(data_dir)
        return cls(**cls._recorded_values(recorded)) if recorded else cls()

    @classmethod
    def _recorded_values(cls, recorded: Mapping[str, Any]) -> dict[str, Any]:
        found = {field: recorded.get(key) for field, key in cls.recorded_as.items()}
        return {field: value for field, value in found.items() if value is not None and not _in_environment(field)}


def about(description: str, *, allowed: str, unit: str = "", **extra: Any) -> Any:
    """A field with what docs/settings.md and error messages say of it."""
    return Field(description=description, json_schema_extra={"allowed": allowed, "unit": unit}, **extra)


class DeskSettings(Settings):
    """Which desk this process belongs to."""

    used_by = "API, worker, ais"
    recorded_as: ClassVar[Mapping[str, str]] = {name: name for name in ("desk", "mode", "symbols", "cycle_seconds")}

    desk: str = about(
        "The desk: one venue account that one coordinator runs. The workflow id is `coordinator-<desk>`.",
        default="main",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$",
        allowed="letters, digits, `_`, `.` and `-`, 63 at most",
    )
    mode: Mode = about(
        "`paper` executes on the built-in venue, `shadow` reads the real one and only prepares, `live` executes there.",
        default="paper",
        allowed="paper, shadow or live",
    )
    symbols: Annotated[tuple[str, ...], NoDecode] = about(
        "The whitelist, in the order in which a kill names them.",
        default=("BTCUSDT", "ETHUSDT"),
        allowed="symbols of letters and digits, with commas between; each once",
    )
    cycle_seconds: Seconds = about(
        "Time from one cycle to the next (`ais dev` uses 5 unless told otherwise).",
        default=60.0,
        unit="seconds",
        allowed="a number above 0, 86400 at most",
        le=86_400,
    )

    @field_validator("symbols", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(normalised(str(part)) for part in parts) if isinstance(parts, list | tuple) else parts

    @field_validator("symbols")
    @classmethod
    def _whitelist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [symbol for symbol in value if not re.fullmatch(r"[A-Z0-9]+", symbol)]
        if not value or wrong or len(set(value)) != len(value):
            raise PydanticCustomError("symbols", "not a whitelist")
        return value

    @property
    def cycle(self) -> timedelta:
        return timedelta(seconds=self.cycle_seconds)


def normalised(symbol: str) -> str:
    """`btc/usdt` -> `BTCUSDT`, as the HTTP contract matches symbols."""
    return re.sub(r"[/\-\s]", "", symbol).upper()


class DatabaseSettings(Settings):
    """Where PostgreSQL is."""

    used_by = "API, worker, ais"
    recorded_as: ClassVar[Mapping[str, str]] = {"database_url": "database_url"}

    database_url: SecretStr = about(
        "PostgreSQL, as a SQLAlchemy URL; `postgresql://` is read as `postgresql+psycopg://`.",
        allowed="postgresql+psycopg://user:password@host:5432/name",
    )

    @field_validator("database_url")
    @classmethod
    def _with_driver(cls, value: SecretStr) -> SecretStr:
        try:
            url = make_url(value.get_secret_value())
        except ArgumentError:
            raise PydanticCustomError("database_url", "not a database URL") from None
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
        if url.drivername != "postgresql+psycopg" or not url.database:
            raise PydanticCustomError("database_url", "not a PostgreSQL URL with psycopg and a database name")
        return SecretStr(url.render_as_string(hide_password=False))

    @property
    def url(self) -> str:
        return self.database_url.get_secret_value()


class ApiSettings(Settings):
    """The HTTP API."""

    used_by = "API"
    recorded_as: ClassVar[Mapping[str, str]] = {"api_key": "api_key", "api_port": "api_port"}

    api_key: SecretStr = about(
        f"The bearer token of /control, /reports and /proposals. Always required. Make one: `{HOW_TO_MAKE_A_KEY}`",
        allowed=f"{MIN_KEY_CHARS} or more printable ASCII characters ({LIVE_KEY_CHARS} in live mode), no placeholder. "
        f"Make one: {HOW_TO_MAKE_A_KEY}",
    )
    api_port: Port = about("Where `ais api` listens; `--port` overrides it.", default=8000, allowed="0 to 65535")
    ack_timeout: Seconds = about(
        "How long a command waits for signal and confirmation together before it answers 202.",
        default=3.0,
        unit="seconds",
        allowed="a number above 0, 60 at most",
        le=60,
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = about(
        "Web origins whose pages may call the API. None unless named.",
        default=(),
        allowed="origins such as https://desk.example.com, with commas between",
    )

    @field_validator("api_key")
    @classmethod
    def _is_a_real_key(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value()
        placeholder = PLACEHOLDER.fullmatch(re.sub(r"[\W_]", "", key.lower())) or len(set(key)) < 5
        if len(key) < MIN_KEY_CHARS or placeholder or not re.fullmatch(r"[!-~]+", key):
            raise PydanticCustomError("api_key", "empty, too short or a placeholder")
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"https?://[^/\s*]+", origin) for origin in value):
            raise PydanticCustomError("cors_origins", "not a list of origins")
        return value

    @property
    def key(self) -> str:
        return self.api_key.get_secret_value()

    @property
    def fit_for_live(self) -> bool:
        """Whether the key is long enough where whoever holds it commands real money."""
        return len(self.key) >= LIVE_KEY_CHARS

    @property
    def acknowledge_within(self) -> timedelta:
        return timedelta(seconds=self.ack_timeout)


class WorkerSettings(Settings):
    """The worker process."""

    used_by = "worker"
    recorded_as: ClassVar[Mapping[str, str]] = {
        "market": "market",
        "metrics_port": "worker_metrics_port",
        "sdk_metrics_port": "worker_sdk_metrics_port",
    }

    market: str = about(
        "Where paper mode takes its bars from.",
        default="simulated",
        allowed="simulated, aster (the real market, through AIS_ASTER_MCP), replay:FILE.csv (the first symbol's bars), or "
        "replay:BTCUSDT=FILE.csv,ETHUSDT=FILE2.csv",
    )
    market_volume: Literal["base", "quote"] = about(
        "What the column `volume` of AIS_MARKET's files counts: units of the base asset, or quote currency. A file with "
        "`quote_volume` instead says so itself.",
        default="base",
        allowed="base or quote",
    )
    seed: int = about("Seed of the simulated market: same seed, same bars.", default=1, allowed="a whole number")
    metrics_port: Port = about(
        "The worker's own metrics (`ais_*`), on 127.0.0.1 unless AIS_METRICS_HOST says otherwise.",
        default=9101,
        allowed="0 to 65535; 0 takes a free one",
    )
    sdk_metrics_port: Port = about(
        "The Temporal SDK's metrics (`temporal_*`).",
        default=9102,
        allowed="0 to 65535; 0 takes a free one",
    )
    metrics_host: str = about(
        "The address on which both metrics ports listen.",
        default="127.0.0.1",
        allowed="an IP address of this machine",
        pattern=r"^[0-9a-fA-F.:]+$",
    )
    graceful_shutdown_seconds: Seconds = about(
        "How long running activities may finish after SIGTERM. Keep it above the longest of them and below "
        "the container's stop grace.",
        default=30.0,
        unit="seconds",
        allowed="a number above 0, 600 at most",
        le=600,
    )

    @field_validator("market")
    @classmethod
    def _known_market(cls, value: str) -> str:
        kind, _, files = value.partition(":")
        if value not in ("simulated", "aster") and not (kind == "replay" and files and _files_exist(files)):
            raise PydanticCustomError("market", "no such market")
        return value

    @property
    def graceful_shutdown(self) -> timedelta:
        return timedelta(seconds=self.graceful_shutdown_seconds)


class AgentSettings(Settings):
    """Trading agents."""

    used_by = "worker, ais"

    agents: Annotated[tuple[str, ...], NoDecode] = about(
        "Which of the installed agents are asked.",
        default=("all",),
        allowed="all, none, or names of installed agents with commas between; each once",
    )
    agent_weights: Annotated[dict[str, float], NoDecode] = about(
        "How much each agent counts in arbitration; 1 unless it is named here. 0: it is asked, and its vote is written "
        "down, but it has no influence. Agents over HTTP are named here too.",
        default={},
        allowed="names and numbers from 0 to 1000, such as momentum=1,mean_reversion=0.5",
    )
    agent_seconds: float = about(
        "How long one agent may take for an answer. Then its process is ended and it has no vote in this cycle.",
        default=1.0,
        unit="seconds",
        allowed="a number from 0.05 to 5",
        ge=0.05,
        le=5,
        allow_inf_nan=False,
    )

    @field_validator("agents", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("agents")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        alone = len(value) == 1 or not {"all", "none"} & set(value)
        if not value or not alone or len(set(value)) != len(value) or not all(map(_is_agent, value)):
            raise PydanticCustomError("agents", "not a list of agents")
        return value

    @field_validator("agent_weights", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        return _weights(value) if isinstance(value, str) else value


def _is_agent(name: str) -> bool:
    return re.fullmatch(AGENT_ID, name) is not None


def _weights(text: str) -> dict[str, float]:
    """`momentum=1,mean_reversion=0.5`, each name once."""
    pairs = [part.partition("=") for part in text.split(",")] if text.strip() else []
    try:
        weights = {name.strip(): float(number) for name, _, number in pairs}
    except ValueError:
        raise PydanticCustomError("agent_weights", "not a weight") from None
    fine = all(_is_agent(name) and 0 <= weight <= 1000 for name, weight in weights.items())
    if not fine or len(weights) != len(pairs):
        raise PydanticCustomError("agent_weights", "not a list of weights")
    return weights


def _files_exist(named: str) -> bool:
    """`FILE`, or `SYMBOL=FILE,SYMBOL2=FILE2`."""
    files = [part.rpartition("=")[2] for part in named.split(",")]
    return Path(named).is_file() or all(file and Path(file).is_file() for file in files)


class PaperVenueSettings(Settings):
    """The built-in venue of paper mode."""

    used_by = "worker, ais"

    paper_balance: Decimal = about(
        "What a new paper account starts with.",
        default=Decimal(100_000),
        unit="quote currency",
        allowed="a number above 0",
        gt=0,
        allow_inf_nan=False,
    )
    paper_fee_bps: BasisPoints = about(
        "Fee of a fill that takes from the book.",
        default=Decimal(4),
        unit="basis points",
        allowed="0 to below 10000",
    )
    paper_maker_fee_bps: BasisPoints = about(
        "Fee of a fill of an order that rested.",
        default=Decimal(2),
        unit="basis points",
        allowed="0 to below 10000",
    )
    paper_slippage_bps: BasisPoints = about(
        "By how much a market order fills worse than the last price.",
        default=Decimal(2),
        unit="basis points",
        allowed="0 to below 10000",
    )
    paper_volume_share: Decimal = about(
        "How much of a bar's volume the desk's orders together can have of it.",
        default=Decimal("0.10"),
        unit="fraction",
        allowed="a number above 0, 1 at most",
        gt=0,
        le=1,
        allow_inf_nan=False,
    )
    paper_leverage: Decimal = about(
        "Futures may be worth this many times the margin balance; initial margin is the notional over it.",
        default=Decimal(5),
        unit="times",
        allowed="1 to 125",
        ge=1,
        le=125,
        allow_inf_nan=False,
    )
    paper_funding_rate: Decimal = about(
        "Funding of every symbol without a file in AIS_PAPER_FUNDING; longs pay shorts where it is positive.",
        default=Decimal("0.0001"),
        unit="fraction of the notional, every eight hours",
        allowed="a number between -1 and 1",
        gt=-1,
        lt=1,
        allow_inf_nan=False,
    )
    paper_funding: str = about(
        "Files of funding rates, with the columns `funding_time_ms,funding_rate`.",
        default="",
        allowed="nothing, FILE.csv (the first symbol's rates), or BTCUSDT=FILE.csv,ETHUSDT=FILE2.csv",
    )

    def terms(self) -> Terms:
        """What the paper venue charges and allows."""
        return Terms(
            fee_bps=self.paper_fee_bps,
            maker_fee_bps=self.paper_maker_fee_bps,
            slippage_bps=self.paper_slippage_bps,
            leverage=self.paper_leverage,
            volume_share=self.paper_volume_share,
        )

    @field_validator("paper_funding")
    @classmethod
    def _known_files(cls, value: str) -> str:
        if value and not _files_exist(value):
            raise PydanticCustomError("funding", "no such file")
        return value


class AsterSettings(Settings):
    """The real venue, Aster through its MCP server: in shadow and live mode, and with AIS_MARKET=aster (docs/venue.md)."""

    used_by = "worker"

    aster_mcp: str = about(
        "Where the Aster MCP server is. Whoever reaches it can trade: keep it on this machine or in a private network.",
        default="http://127.0.0.1:9002/mcp",
        allowed="an https URL; an http URL on this machine or in a private network, where a path that ends in /sse means "
        "SSE and any other streamable HTTP; or stdio:COMMAND ARG ...",
    )
    aster_account_id: SecretStr | None = about(
        "The account's name in the MCP server's own configuration.",
        default=None,
        allowed="the account_id that `aster-mcp list` shows; required in shadow and live mode",
    )
    aster_timeout: Seconds = about(
        "How long one call of a tool may take, connecting included.",
        default=3.0,
        unit="seconds",
        allowed="a number above 0, 3 at most: a cancel and its reading back have to fit into one attempt",
        le=3,
    )
    aster_interval: Literal["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"] = about(
        "Length of the bars that agents see, and by which AIS_MARKET=aster moves.",
        default="1m",
        allowed="1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h or 1d",
    )
    books_seconds: Seconds = about(
        "How often a live desk's books are read from the exchange and compared with its balance.",
        default=60.0,
        unit="seconds",
        allowed="a number above 0, 3600 at most",
        le=3600,
    )
    enable_live_trading: bool = about(
        "The second key to live mode: without it AIS_MODE=live does not start.", default=False, allowed="true or false"
    )

    @field_validator("aster_mcp")
    @classmethod
    def _is_reachable_by_us_alone(cls, value: str) -> str:
        if value.startswith("stdio:"):
            if not value.removeprefix("stdio:").strip():
                raise PydanticCustomError("aster_mcp", "no command")
            return value
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
            raise PydanticCustomError("aster_mcp", "no such address")
        if url.scheme == "http" and not _is_near(url.hostname):
            raise PydanticCustomError("aster_mcp", "plain HTTP over a public network")
        return value

    @field_validator("aster_account_id")
    @classmethod
    def _empty_is_none(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value and value.get_secret_value().strip() else None

    @property
    def leaves_this_machine(self) -> bool:
        """Whether plain HTTP goes further than this machine, where others may listen and trade."""
        url = urlsplit(self.aster_mcp)
        return url.scheme == "http" and not _is_this_machine(url.hostname or "")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_near(host: str) -> bool:
    """This machine, a private network, or a name that only such a network gives."""
    try:
        address = ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".internal", ".local"))
    return address.is_loopback or (address.is_private and not address.is_unspecified)


class LimitSettings(Settings, Limits):  # type: ignore[misc]
    """What guards and portfolio limits allow; carried by a coordinator from its start, and changed by `set_limits`."""

    used_by = "ais"

    max_data_age_seconds: Seconds | None = about(  # type: ignore[assignment]
        "Age of the oldest market data that an order may be based on. Three cycles unless set.",
        default=None,
        unit="seconds",
        allowed="a number above 0",
    )
    kill_flattens: bool = about(
        "Whether a kill also closes every futures position: cancels first, then reduce-only orders until none is left.",
        default=False,
        allowed="true or false",
    )

    def limits(self, cycle: timedelta) -> Limits:
        """The limits that a coordinator with this cycle starts with."""
        age = 3 * cycle.total_seconds() if self.max_data_age_seconds is None else self.max_data_age_seconds
        named = self.model_dump(include=set(Limits.model_fields), exclude={"max_data_age_seconds"})
        return Limits(**named, max_data_age_seconds=age)


class DiskSettings(Settings):
    """Free disk space."""

    used_by = "API, worker"
    recorded_as: ClassVar[Mapping[str, str]] = {"disk_folders": "disk_folders"}

    disk_folders: Annotated[tuple[str, ...], NoDecode] = about(
        "Folders whose free space is watched: those of PostgreSQL and Temporal, and whatever else is written to, where this "
        "process sees them. Under 10 % or 1 GB `/health` is degraded and `ais status` warns.",
        default=(".",),
        allowed="folders with commas between; one that cannot be seen is left out",
    )

    @field_validator("disk_folders", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class LogSettings(Settings):
    """What is logged, and how it looks."""

    used_by = "API, worker, ais"

    log_level: LogLevel = about("The least that is logged.", default="INFO", allowed="DEBUG, INFO, WARNING or ERROR")
    log_format: Literal["console", "json"] = about(
        "`console` for people, `json` for a log collector.",
        default="console",
        allowed="console or json",
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


class FolderSettings(Settings):
    """Where a running `ais dev` is found."""

    used_by = "API, worker, ais"

    data_dir: Path | None = about(
        "The data folder of a running `ais dev`, whose Temporal, database, desk and key are used. "
        "`--data-dir` overrides it.",
        default=None,
        allowed="the --data-dir of a running `ais dev`",
    )


MODELS: tuple[type[Settings], ...] = (
    DeskSettings, DatabaseSettings, ApiSettings, WorkerSettings, AgentSettings, PaperVenueSettings, AsterSettings,
    LimitSettings, DiskSettings,
    LogSettings, FolderSettings,
)  # fmt: skip


# --- a running `ais dev` --------------------------------------------------------------------------------------------


def data_folder(data_dir: Path | None = None) -> Path | None:
    """The folder that `--data-dir`, AIS_DATA_DIR or `.env` names, made absolute; None where none of them does."""
    chosen = data_dir or FolderSettings().data_dir
    return chosen.expanduser().resolve() if chosen else None


def running_stack(data_dir: Path | None = None) -> Mapping[str, Any] | None:
    """What the `ais dev` of the named folder recorded of itself; None where no folder is named."""
    folder = data_folder(data_dir)
    if folder is None:
        return None
    try:
        recorded: dict[str, Any] = json.loads((folder / PORTS_FILE).read_text())
    except FileNotFoundError:
        raise NoRunningStack(folder) from None
    return recorded | _recorded_key(recorded)


def _recorded_key(recorded: Mapping[str, Any]) -> dict[str, str]:
    """The key stands in a file of its own (mode 0600) and never in ports.json."""
    file = recorded.get("api_key_file")
    return {"api_key": Path(file).read_text().strip()} if file else {}


def temporal_connect_config(data_dir: Path | None = None) -> ClientConnectConfig:
    """Arguments of `temporalio.client.Client.connect`. Raises NoRunningStack or WrongTemporalSettings.

    Temporal's own rules (TEMPORAL_* and profiles), in which `.env` counts as environment. But where a data folder is
    in use and TEMPORAL_ADDRESS is not set, the folder alone decides: a profile's TLS and key belong to another cluster.
    """
    recorded = running_stack(data_dir)
    if recorded and "TEMPORAL_ADDRESS" not in os.environ:
        return {"target_host": recorded["temporal_address"], "namespace": recorded["temporal_namespace"]}
    try:
        loaded = ClientConfig.load_client_connect_config(override_env_vars=_temporal_environment())
    except Exception as error:
        # The SDK's own errors have no base of their own, and everything that this reads is a person's.
        raise WrongTemporalSettings(error) from error
    return {"target_host": "127.0.0.1:7233", "namespace": "default", **loaded}


def _temporal_environment() -> dict[str, str]:
    from_file = {name: value for name, value in dotenv_values(DOTENV).items() if value and name.startswith("TEMPORAL_")}
    return {**from_file, **os.environ}


def origin(field: str) -> Literal["environment", ".env"] | None:
    """Who sets a field: the environment, `.env`, or nobody."""
    if _in_environment(field):
        return "environment"
    return ".env" if variable(field) in {name.upper() for name in dotenv_values(DOTENV)} else None


def _in_environment(field: str) -> bool:
    return any(name.upper() == variable(field) for name in os.environ)


# --- for people -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One row of docs/settings.md."""

    variable: str
    default: str
    unit: str
    allowed: str
    description: str
    secret: bool
    group: str
    used_by: str


def variable(field: str) -> str:
    return PREFIX + field.upper()


def catalogue() -> list[Setting]:
    """Every setting there is, in the order of the models above."""
    return [_row(model, name, info) for model in MODELS for name, info in model.model_fields.items()]


def _row(model: type[Settings], name: str, info: FieldInfo) -> Setting:
    extra = _extra(info)
    return Setting(
        variable=variable(name), default=_shown_default(info), unit=extra["unit"], allowed=extra["allowed"],
        description=info.description or "", secret=_is_secret(info),
        group=(model.__doc__ or "").strip(), used_by=model.used_by,
    )  # fmt: skip


def _extra(info: FieldInfo) -> dict[str, str]:
    return {key: str(value) for key, value in dict(info.json_schema_extra or {}).items()}  # type: ignore[arg-type]


def _is_secret(info: FieldInfo) -> bool:
    return SecretStr in (info.annotation, *get_args(info.annotation))


def _shown_default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if isinstance(info.default, bool):
        return str(info.default).lower()
    shown = ",".join(info.default) if isinstance(info.default, tuple) else str(info.default)
    return "none" if shown in ("", "None", "{}") else shown.removesuffix(".0")


def unknown_variables() -> list[str]:
    """AIS_ names in the environment that no setting has: a typo that would otherwise be ignored in silence."""
    known = {setting.variable for setting in catalogue()}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def explain(error: ValidationError) -> str:
    """One line for each wrong setting: variable, value (never a secret's), what is allowed."""
    return "\n".join(_explain_one(detail) for detail in error.errors(include_url=False))


def _explain_one(detail: ErrorDetails) -> str:
    field = str(detail["loc"][0]) if detail["loc"] else ""
    info = next((model.model_fields[field] for model in MODELS if field in model.model_fields), None)
    if info is None:
        return _of_the_whole_model(str(detail["msg"]))
    return f"{variable(field)} {_what_is_wrong(detail, info)}. Allowed: {_extra(info)['allowed']}"


def _of_the_whole_model(text: str) -> str:
    """`hard_drawdown (0.01) is below …`, with the variables that a person sets."""
    fields = {name for model in MODELS for name in model.model_fields if "_" in name}
    named = re.sub(r"\w+", lambda word: variable(word[0]) if word[0] in fields else word[0], text)
    return named.removeprefix("Value error, ")


def _what_is_wrong(detail: ErrorDetails, info: FieldInfo) -> str:
    if detail["type"] == "missing":
        return "is not set"
    if _is_secret(info):
        return f"is set, but {detail['msg']}"
    return f"is {_raw(detail['input'])!r}, which is not allowed"


def _raw(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value
