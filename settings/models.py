"""Every setting of AIS: its variable, unit, default and allowed values.

Each concern has one model; a process loads the models it needs. Where a value comes from: `settings/__init__.py`.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode, SettingsConfigDict

from domain.paper.book import Terms
from domain.risk.limits import DATA_AGE_CYCLES, Limits
from domain.trading.proposals import AGENT_ID
from domain.trading.symbols import normalise_symbol
from settings.running_stack import FolderSettings, Settings, about

HOW_TO_MAKE_A_KEY = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
DESK_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
MIN_KEY_CHARS = 16
MOST_TARGETS = 20
LIVE_KEY_CHARS = 32
LIVE_KEY = f"an AIS_API_KEY of {LIVE_KEY_CHARS} characters or more"
# Matched against the key in lower case without punctuation: `change-me-please`, `your_ais_api_key_here`, `xxxxxxxx`.
PLACEHOLDER = re.compile(
    r"(please|change|replace|insert|me|this|with|the|a|an|your|my|ais|api|key|secret|password|token|placeholder|example"
    r"|here|now|x+)+\d{0,4}"
)

Mode = Literal["paper", "shadow", "live"]
Versioning = Literal["off", "auto-upgrade", "pinned"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BasisPoints = Annotated[Decimal, Field(ge=0, lt=10_000, allow_inf_nan=False)]


class DeskName(Settings):
    """The desk alone, for commands that must work even if other settings are wrong."""

    recorded_as: ClassVar[Mapping[str, str]] = {"desk": "desk"}

    desk: str = about(
        "The desk: one venue account that one coordinator runs. The workflow id is `coordinator-<desk>`.",
        default="main",
        pattern=rf"^{DESK_NAME}$",
        allowed="letters, digits, `_`, `.` and `-`, 63 at most",
    )


class DeskSettings(DeskName):
    """Which desk this process belongs to."""

    used_by = "API, worker, ais"
    recorded_as: ClassVar[Mapping[str, str]] = {name: name for name in ("desk", "mode", "symbols", "cycle_seconds")}

    mode: Mode = about(
        "`paper` trades on the built-in venue. `shadow` reads the real venue and sends nothing. `live` trades there.",
        default="paper",
        allowed="paper, shadow or live",
    )
    symbols: Annotated[tuple[str, ...], NoDecode] = about(
        "The whitelist. A kill lists its cancels in this order.",
        default=("BTCUSDT", "ETHUSDT"),
        allowed="symbols of letters and digits, separated by commas; each once",
    )
    cycle_seconds: Seconds = about(
        "Time from one cycle to the next (`ais dev` uses 5 by default).",
        default=60.0,
        unit="seconds",
        allowed="a number above 0, 86400 at most",
        le=86_400,
    )

    @field_validator("symbols", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        return (
            tuple(normalise_symbol(str(part).strip()) for part in parts) if isinstance(parts, list | tuple) else parts
        )

    @field_validator("symbols")
    @classmethod
    def _whitelist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise PydanticCustomError("symbols", "not a whitelist")
        return value

    @property
    def cycle(self) -> timedelta:
        return timedelta(seconds=self.cycle_seconds)


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
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

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


class TableOwnerSettings(DatabaseSettings):
    """PostgreSQL as the role that owns the tables. Only `ais dev` has a separate URL for it; else it is AIS_DATABASE_URL."""

    recorded_as: ClassVar[Mapping[str, str]] = {"database_url": "owner_url"}


class ApiSettings(Settings):
    """The HTTP API."""

    used_by = "API"
    recorded_as: ClassVar[Mapping[str, str]] = {"api_key": "api_key", "api_port": "api_port"}

    api_key: SecretStr = about(
        "The administrator's bearer token, for /control, /reports and /proposals. Always required. `ais keys` makes further "
        f"keys, with roles. Make this one: `{HOW_TO_MAKE_A_KEY}`",
        allowed=f"{MIN_KEY_CHARS} or more printable ASCII characters ({LIVE_KEY_CHARS} in live mode), no placeholder. "
        f"Make one: {HOW_TO_MAKE_A_KEY}",
    )
    api_port: Port = about("Port of `ais api`; `--port` overrides it.", default=8000, allowed="0 to 65535")
    ack_timeout: Seconds = about(
        "How long the API waits, in total, to signal a command and see it confirmed. After that it answers 202.",
        default=3.0,
        unit="seconds",
        allowed="a number above 0, 60 at most",
        le=60,
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = about(
        "Web origins whose pages may call the API. By default no other origin may.",
        default=(),
        allowed="origins such as https://desk.example.com, separated by commas",
    )

    console_lock_minutes: float = about(
        "After this long without input the console forgets its key.",
        default=30.0,
        unit="minutes",
        allowed="a number above 0, 1440 at most",
        gt=0,
        le=1440,
    )
    console_temporal_address: str | None = about(
        "Temporal's address in the commands that the console shows for a kill without the API. Set it if people reach Temporal "
        "at another address than the API does, for example from outside its containers. By default it is the API's own.",
        default=None,
        allowed="an address such as temporal.example.com:7233",
        pattern=r"^[!-~]+:\d{1,5}$",
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
        """Whether the key is long enough for live mode, where its holder commands real money."""
        return len(self.key) >= LIVE_KEY_CHARS


class WorkerSettings(Settings):
    """The worker process."""

    used_by = "worker"
    recorded_as: ClassVar[Mapping[str, str]] = {
        "market": "market",
        "metrics_port": "worker_metrics_port",
        "sdk_metrics_port": "worker_sdk_metrics_port",
        "worker_versioning": "worker_versioning",
    }

    market: str = about(
        "Where paper mode takes its bars from.",
        default="simulated",
        allowed="simulated, aster (the real market, through AIS_ASTER_MCP), replay:FILE.csv (the first symbol's bars), or "
        "replay:BTCUSDT=FILE.csv,ETHUSDT=FILE2.csv",
    )
    market_volume: Literal["base", "quote"] = about(
        "Unit of the column `volume` in AIS_MARKET's files: units of the base asset, or quote currency. A file with the "
        "column `quote_volume` needs no setting.",
        default="base",
        allowed="base or quote",
    )
    seed: int = about("Seed of the simulated market: same seed, same bars.", default=1, allowed="a whole number")
    metrics_port: Port = about(
        "Port of the worker's own metrics (`ais_*`), on 127.0.0.1 unless AIS_METRICS_HOST says otherwise.",
        default=9101,
        allowed="0 to 65535; 0 takes a free one",
    )
    sdk_metrics_port: Port = about(
        "Port of the Temporal SDK's metrics (`temporal_*`).",
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
        "How long running activities may take to finish after SIGTERM. Keep it above the longest activity and below "
        "the container's stop grace period.",
        default=30.0,
        unit="seconds",
        allowed="a number above 0, 600 at most",
        le=600,
    )
    worker_versioning: Versioning = about(
        "Temporal's Worker Deployment Versioning. With `auto-upgrade` a desk switches to the current version at once, with "
        "`pinned` when its next run begins. A worker with a version does nothing for a desk until somebody makes that version "
        "the current one: docs/operations.md, Upgrading workers. `ais dev` leaves it off.",
        default="off",
        allowed="off, auto-upgrade or pinned",
    )
    worker_deployment: str = about(
        "The worker deployment: one name for the workers of all desks in a namespace, since any of them takes workflow tasks.",
        default="ais",
        allowed="letters, digits, `_` and `-`, 63 at most",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$",
    )
    worker_build_id: str | None = about(
        "The build id of this worker's code. Use a new one for each deployment. By default it is the version of the installed "
        "package.",
        default=None,
        allowed="letters, digits, `_`, `.`, `+` and `-`, 127 at most",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,126}$",
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

    # An empty AIS_AGENTS is refused: it may mean all of them or none.
    model_config = SettingsConfigDict(env_ignore_empty=False)
    used_by = "worker, ais"

    agents: Annotated[tuple[str, ...], NoDecode] = about(
        "The installed agents that this worker runs. `all` leaves out `quoter`; `all,quoter` includes it.",
        default=("all",),
        allowed="all, none, or names of installed agents separated by commas, each once; all,quoter for every one",
    )
    agent_weights: Annotated[dict[str, float], NoDecode] = about(
        "How much each agent's vote counts; 1 for an agent that is not listed. With 0 the agent runs and its vote is "
        "recorded, but has no influence. List agents over HTTP here too.",
        default={},
        allowed="names and numbers from 0 to 1000, such as momentum=1,mean_reversion=0.5",
    )
    agent_seconds: float = about(
        "How long one agent may take to answer. After that the worker ends its process, and the agent has no vote in this cycle.",
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
        alone = len(value) == 1 or ("none" not in value and "all" not in value[1:])
        if not value or not alone or len(set(value)) != len(value) or not all(map(_is_agent, value)):
            raise PydanticCustomError("agents", "not a list of agents")
        return value

    @field_validator("agent_weights", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """`momentum=1,mean_reversion=0.5`, each name once."""
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",")] if value.strip() else []
        try:
            weights = {name.strip(): float(number) for name, _, number in pairs}
        except ValueError:
            raise PydanticCustomError("agent_weights", "not a weight") from None
        fine = all(_is_agent(name) and 0 <= weight <= 1000 for name, weight in weights.items())
        if not fine or len(weights) != len(pairs):
            raise PydanticCustomError("agent_weights", "not a list of weights")
        return weights


def _is_agent(name: str) -> bool:
    return re.fullmatch(AGENT_ID, name) is not None


def _files_exist(named: str) -> bool:
    """`FILE`, or `SYMBOL=FILE,SYMBOL2=FILE2`."""
    files = [part.rpartition("=")[2] for part in named.split(",")]
    return Path(named).is_file() or all(file and Path(file).is_file() for file in files)


class PaperVenueSettings(Settings):
    """The built-in venue of paper mode."""

    used_by = "worker, ais"

    paper_balance: Decimal = about(
        "Opening balance of a new paper account.",
        default=Decimal(100_000),
        unit="quote currency",
        allowed="a number above 0",
        gt=0,
        allow_inf_nan=False,
    )
    paper_fee_bps: BasisPoints = about(
        "Taker fee: for a fill that takes from the book.",
        default=Decimal(4),
        unit="basis points",
        allowed="0 to below 10000",
    )
    paper_maker_fee_bps: BasisPoints = about(
        "Maker fee: for a fill of an order that rested in the book.",
        default=Decimal(2),
        unit="basis points",
        allowed="0 to below 10000",
    )
    paper_slippage_bps: BasisPoints = about(
        "How much worse than the last price a market order fills.",
        default=Decimal(2),
        unit="basis points",
        allowed="0 to below 10000",
    )
    paper_volume_share: Decimal = about(
        "Share of a bar's volume that the desk's orders together may fill.",
        default=Decimal("0.10"),
        unit="fraction",
        allowed="a number above 0, 1 at most",
        gt=0,
        le=1,
        allow_inf_nan=False,
    )
    paper_leverage: Decimal = about(
        "Futures may be worth this many times the margin balance. Initial margin is the notional divided by this.",
        default=Decimal(5),
        unit="times",
        allowed="1 to 125",
        ge=1,
        le=125,
        allow_inf_nan=False,
    )
    paper_funding_rate: Decimal = about(
        "Funding rate of every symbol without a file in AIS_PAPER_FUNDING. If it is positive, longs pay shorts.",
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
        """The paper venue's fees and limits."""
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
    """The real venue, Aster through its MCP server: for shadow and live mode, and for AIS_MARKET=aster (docs/venue.md)."""

    used_by = "worker"

    aster_mcp: str = about(
        "Address of the Aster MCP server. Anyone who reaches it can trade: keep it on this machine or in a private network.",
        default="http://127.0.0.1:9002/mcp",
        allowed="an https URL; an http URL on this machine or in a private network (a path that ends in /sse means SSE, any "
        "other path streamable HTTP); or stdio:COMMAND ARG ...",
    )
    aster_account_id: SecretStr | None = about(
        "Name of the account in the MCP server's own configuration.",
        default=None,
        allowed="the account_id that `aster-mcp list` shows; required in shadow and live mode",
    )
    aster_timeout: Seconds = about(
        "How long one tool call may take, including the time to connect.",
        default=3.0,
        unit="seconds",
        allowed="a number above 0, 3 at most: one attempt must have time for a cancel and for reading the result back",
        le=3,
    )
    aster_interval: Literal["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"] = about(
        "Length of the bars that agents see. With AIS_MARKET=aster the paper market also moves by these bars.",
        default="1m",
        allowed="1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h or 1d",
    )
    books_seconds: Seconds = about(
        "How often the worker of a live desk reads the books from the exchange and compares them with its balance.",
        default=60.0,
        unit="seconds",
        allowed="a number above 0, 3600 at most",
        le=3600,
    )
    enable_live_trading: bool = about(
        "Confirms live mode: without it AIS_MODE=live does not start.", default=False, allowed="true or false"
    )

    @field_validator("aster_mcp")
    @classmethod
    def _is_private_or_encrypted(cls, value: str) -> str:
        if value.startswith("stdio:"):
            if not value.removeprefix("stdio:").strip():
                raise PydanticCustomError("aster_mcp", "no command")
            return value
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
            raise PydanticCustomError("aster_mcp", "no such address")
        if url.scheme == "http" and not _is_private_host(url.hostname):
            raise PydanticCustomError("aster_mcp", "plain HTTP over a public network")
        return value

    @field_validator("aster_account_id")
    @classmethod
    def _empty_is_none(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value and value.get_secret_value().strip() else None

    @property
    def leaves_this_machine(self) -> bool:
        """Whether plain HTTP leaves this machine, so that others may listen and trade."""
        url = urlsplit(self.aster_mcp)
        try:
            return url.scheme == "http" and not ip_address(url.hostname or "").is_loopback
        except ValueError:
            return url.hostname != "localhost"


def _is_private_host(host: str) -> bool:
    """Whether the host is this machine, in a private network, or a name that only a private network resolves."""
    try:
        address = ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".internal", ".local"))
    return address.is_loopback or (address.is_private and not address.is_unspecified)


class LimitSettings(Settings, Limits):  # type: ignore[misc]
    """Limits of guards and portfolio. A coordinator takes them when it starts; later only `set_limits` changes them."""

    used_by = "ais"

    max_data_age_seconds: Seconds | None = about(  # type: ignore[assignment]
        "Maximum age of the market data behind an order. Three cycles unless set.",
        default=None,
        unit="seconds",
        allowed="a number above 0",
    )
    kill_flattens: bool = about(
        "Whether a kill also closes every futures position: first cancels, then reduce-only orders until none is left.",
        default=False,
        allowed="true or false",
    )

    def limits(self, cycle: timedelta) -> Limits:
        """The limits that a coordinator with this cycle starts with."""
        age = (
            DATA_AGE_CYCLES * cycle.total_seconds() if self.max_data_age_seconds is None else self.max_data_age_seconds
        )
        named = self.model_dump(include=set(Limits.model_fields), exclude={"max_data_age_seconds"})
        return Limits(**named, max_data_age_seconds=age)


class AuditSettings(Settings):
    """Signing the audit chain."""

    used_by = "worker, ais"

    audit_key: str | None = about(
        "File with the private key that signs checkpoints of the audit chain; `ais audit key` makes one. With it the worker "
        "signs one a day, and after each kill and restart. Keep the public key and each checkpoint out of reach of anybody who "
        "may write to the database.",
        default=None,
        allowed="path of a file",
    )


class DiskSettings(Settings):
    """Free disk space."""

    used_by = "API, worker"
    recorded_as: ClassVar[Mapping[str, str]] = {"disk_folders": "disk_folders"}

    disk_folders: Annotated[tuple[str, ...], NoDecode] = about(
        "Folders whose free space this process watches: those of PostgreSQL and Temporal, and any other that AIS writes to. "
        "Below 10 % or 1 GB `/health` is degraded and `ais status` warns.",
        default=(".",),
        allowed="folders separated by commas; folders that this process cannot see are ignored",
    )

    @field_validator("disk_folders", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class NotifySettings(Settings):
    """Notifications."""

    used_by = "API, worker, ais"

    notify_urls: SecretStr | None = about(
        "Where notifications go: a level and an Apprise URL for each target. A `critical` target gets kills and what needs "
        "somebody at once, an `info` target gets everything (docs/notifications.md). Set the same for worker and API.",
        default=None,
        allowed="critical=URL or info=URL; separate several by spaces, 20 at most, each once",
    )

    @field_validator("notify_urls")
    @classmethod
    def _are_targets(cls, value: SecretStr | None) -> SecretStr | None:
        entries = value.get_secret_value().split() if value else []
        # Never the entry itself: it holds passwords.
        for number, entry in enumerate(entries, 1):
            if not re.fullmatch(r"(critical|info)=[A-Za-z][A-Za-z0-9+.-]*://\S+", entry):
                raise PydanticCustomError("notify_urls", "entry {number} is no level=URL", {"number": number})
        if len(set(entries)) < len(entries) or len(entries) > MOST_TARGETS:
            raise PydanticCustomError("notify_urls", "an entry is listed twice, or there are too many")
        return value if entries else None

    @property
    def targets(self) -> list[tuple[str, str]]:
        """The level and URL of each target."""
        entries = self.notify_urls.get_secret_value().split() if self.notify_urls else []
        return [(level, url) for level, _, url in (entry.partition("=") for entry in entries)]


class RedisSettings(Settings):
    """Redis: a copy of the desk's state, for other programs."""

    used_by = "API, worker"
    recorded_as: ClassVar[Mapping[str, str]] = {"redis_url": "redis_url"}

    redis_url: SecretStr | None = about(
        "Where the worker mirrors the desk's state, and what the API probes for `/health` (docs/redis.md). AIS itself reads "
        "nothing from it.",
        default=None,
        allowed="redis://, rediss:// or unix://, with user and password if it has them: redis://:password@host:6379/0",
    )

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value().strip() if value else ""
        if not text:
            return None
        try:
            url = urlsplit(text)
            fine = bool(url.path) if url.scheme == "unix" else bool(url.hostname) and url.port != 0
        except ValueError:
            fine = False
        if not fine or url.scheme not in ("redis", "rediss", "unix"):
            raise PydanticCustomError("redis_url", "not a Redis URL")
        return SecretStr(text)

    @property
    def url(self) -> str | None:
        return self.redis_url.get_secret_value() if self.redis_url else None


class LogSettings(Settings):
    """Logging."""

    used_by = "API, worker, ais"

    log_level: LogLevel = about("Lowest level to log.", default="INFO", allowed="DEBUG, INFO, WARNING or ERROR")
    log_format: Literal["console", "json"] = about(
        "`console` for people, `json` for a log collector.",
        default="console",
        allowed="console or json",
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


class TraceSettings(Settings):
    """Traces."""

    used_by = "API, worker"

    traces_url: SecretStr | None = about(
        "Where traces go: an OTLP/HTTP receiver. It needs the packages of the extra `traces` (docs/traces.md).",
        default=None,
        allowed="an http or https URL; without a path, /v1/traces is added",
    )

    @field_validator("traces_url")
    @classmethod
    def _to_the_receiver(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value().strip() if value else ""
        if not text:
            return None
        try:
            url = urlsplit(text)
            if url.scheme not in ("http", "https") or not url.hostname or url.port == 0:
                raise ValueError
        except ValueError:
            raise PydanticCustomError("traces_url", "not an HTTP URL") from None
        return SecretStr(urlunsplit(url._replace(path="/v1/traces")) if url.path in ("", "/") else text)

    @property
    def url(self) -> str | None:
        """The whole address; it may hold a password."""
        return self.traces_url.get_secret_value() if self.traces_url else None


MODELS: tuple[type[Settings], ...] = (
    DeskSettings, DatabaseSettings, ApiSettings, WorkerSettings, AgentSettings, PaperVenueSettings, AsterSettings,
    LimitSettings, AuditSettings, DiskSettings,
    NotifySettings, RedisSettings,
    LogSettings, TraceSettings, FolderSettings,
)  # fmt: skip
