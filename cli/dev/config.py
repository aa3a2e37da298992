"""The configuration of one `ais dev`: its flags, and what it passes to its children and records in ports.json."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.dev.ports import HOST
from cli.dev.redis import url_of
from cli.dev.temporal import NAMESPACE
from settings import DOTENV, ApiSettings, DeskSettings, WorkerSettings, origin

DEFAULT_FOLDER = Path(".ais")
DEFAULT_CYCLE_SECONDS = 5.0


@dataclass(frozen=True)
class Ports:
    """Where everything listens, on 127.0.0.1."""

    api: int
    temporal: int
    ui: int
    metrics: int = 0
    sdk_metrics: int = 0
    redis: int = 0


@dataclass(frozen=True)
class StackConfig:
    """The flags, after environment and `.env` have filled in what was left out."""

    data_dir: Path
    ports: Ports
    desk: DeskSettings
    market: str
    without: frozenset[str] = frozenset()
    redis: bool = False

    def has(self, part: str) -> bool:
        return part not in self.without

    def desk_settings(self) -> dict[str, str]:
        """Environment variables for the children; they override the `.env` that a child also reads."""
        return {
            "AIS_DATA_DIR": str(self.data_dir),
            "AIS_DESK": self.desk.desk,
            "AIS_MODE": self.desk.mode,
            "AIS_SYMBOLS": ",".join(self.desk.symbols),
            "AIS_CYCLE_SECONDS": str(self.desk.cycle_seconds),
            "AIS_MARKET": self.market,
            # A worker with a version waits for somebody to make it current, and nobody does so here.
            "AIS_WORKER_VERSIONING": "off",
            # On paper adds `quoter`, so that orders rest and a kill has something to cancel, unless the person chose agents.
            **({"AIS_AGENTS": "all,quoter"} if self.desk.mode == "paper" and not origin("agents") else {}),
        }

    def record(
        self, ports: Ports, database_url: str, owner_url: str, key_file: Path | None, pids: dict[str, int | None]
    ) -> dict[str, Any]:
        """The content of ports.json: what `settings` reads when a data folder is named, and addresses for people."""
        return {
            "pid": os.getpid(),
            "pids": pids,
            **self.desk.model_dump(mode="json"),
            "market": self.market,
            "worker_versioning": "off",
            "api_url": f"http://{HOST}:{ports.api}",
            "api_port": ports.api,
            "api_key_file": str(key_file) if key_file else None,
            "temporal_address": f"{HOST}:{ports.temporal}",
            "temporal_namespace": NAMESPACE,
            "temporal_port": ports.temporal,
            "ui_url": f"http://{HOST}:{ports.ui}",
            "ui_port": ports.ui,
            "worker_metrics_port": ports.metrics,
            "worker_sdk_metrics_port": ports.sdk_metrics,
            "database_url": database_url,
            # For `ais migrate` alone.
            "owner_url": owner_url,
            # Empty if there is none: a `.env` that names one is not meant for this desk.
            "redis_url": url_of(ports.redis) if self.redis else "",
            "redis_port": ports.redis if self.redis else None,
            # It contains the data of PostgreSQL and Temporal.
            "disk_folders": [str(self.data_dir)],
        }


@dataclass(frozen=True)
class Flags:
    """The command line as typed; None for a flag that was left out."""

    data_dir: Path | None = None
    port: int | None = None
    temporal_port: int = 7233
    ui_port: int = 8233
    desk: str | None = None
    symbols: str | None = None
    cycle_seconds: float | None = None
    market: str | None = None
    without: frozenset[str] = frozenset()
    redis: bool = False

    def resolve(self) -> StackConfig:
        """Raises ValidationError if a flag, the environment or `.env` is wrong."""
        # ApiSettings requires a key, but `ais dev` may not have made one yet.
        port = ApiSettings(api_key="only-the-port-is-asked-of-it").api_port if self.port is None else self.port
        desk = _given(desk=self.desk, symbols=self.symbols, cycle_seconds=self.cycle_seconds)
        if not origin("cycle_seconds"):
            desk.setdefault("cycle_seconds", DEFAULT_CYCLE_SECONDS)
        return StackConfig(
            data_dir=(self.data_dir or Path(os.environ.get("AIS_DATA_DIR") or DEFAULT_FOLDER)).expanduser().resolve(),
            ports=Ports(port, self.temporal_port, self.ui_port),
            desk=DeskSettings(**desk),
            market=_absolute(WorkerSettings(**_given(market=self.market)).market),
            without=self.without,
            redis=self.redis,
        )


@dataclass(frozen=True)
class Key:
    """Where the API key is, in our own file or where the person set it, and how a shell reads it."""

    file: Path | None
    place: str
    shell: str


def find_key() -> Key | None:
    """The person's own key, validated (may raise ValidationError). None if there is none: `ais dev` then makes one."""
    source = origin("api_key")
    if source is None:
        return None
    ApiSettings()
    if source == "environment":
        return Key(None, "AIS_API_KEY of the environment", "$AIS_API_KEY")
    return Key(None, f"AIS_API_KEY in {DOTENV.absolute()}", f"$(sed -n 's/^AIS_API_KEY=//p' {DOTENV.absolute()})")


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _absolute(market: str) -> str:
    """Makes the paths in a `replay:` market absolute, since a child may run in another working directory."""
    kind, colon, files = market.partition(":")
    if not colon:
        return market
    if Path(files).is_file():
        return f"{kind}:{Path(files).resolve()}"
    parts = (part.rpartition("=") for part in files.split(","))
    return f"{kind}:" + ",".join(f"{symbol}{equals}{Path(file).resolve()}" for symbol, equals, file in parts)
