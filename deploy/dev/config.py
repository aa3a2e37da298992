"""What one `ais dev` was asked for, and what it tells its children and everybody else."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.dev.ports import HOST
from deploy.dev.temporal import NAMESPACE
from settings import DOTENV, ApiSettings, DeskSettings, WorkerSettings, origin

PARTS = ("worker", "api")
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


@dataclass(frozen=True)
class StackConfig:
    """The flags, after environment and `.env` have filled in what was left out."""

    data_dir: Path
    ports: Ports
    desk: DeskSettings
    market: str
    without: frozenset[str] = frozenset()

    def has(self, part: str) -> bool:
        return part not in self.without

    def desk_settings(self) -> dict[str, str]:
        """For the environment, where they stand above the `.env` that a child reads too."""
        return {
            "AIS_DATA_DIR": str(self.data_dir),
            "AIS_DESK": self.desk.desk,
            "AIS_MODE": self.desk.mode,
            "AIS_SYMBOLS": ",".join(self.desk.symbols),
            "AIS_CYCLE_SECONDS": str(self.desk.cycle_seconds),
            "AIS_MARKET": self.market,
        }

    def record(
        self, ports: Ports, database_url: str, key_file: Path | None, pids: dict[str, int | None]
    ) -> dict[str, Any]:
        """ports.json: what `settings` reads for whoever names the data folder, and addresses for people."""
        return {
            "pid": os.getpid(),
            "pids": pids,
            **self.desk.model_dump(mode="json"),
            "market": self.market,
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
            # PostgreSQL's and Temporal's are in it.
            "disk_folders": [str(self.data_dir)],
        }


@dataclass(frozen=True)
class Flags:
    """The command line as it was typed; None where nothing was."""

    data_dir: Path | None = None
    port: int | None = None
    temporal_port: int = 7233
    ui_port: int = 8233
    desk: str | None = None
    symbols: str | None = None
    cycle_seconds: float | None = None
    market: str | None = None
    without: frozenset[str] = frozenset()

    def resolve(self) -> StackConfig:
        """Raises ValidationError where a flag, the environment or `.env` is wrong."""
        folder = self.data_dir or _folder_from_environment() or DEFAULT_FOLDER
        return StackConfig(
            data_dir=folder.expanduser().resolve(),
            ports=Ports(self._api_port(), self.temporal_port, self.ui_port),
            desk=self._desk(),
            market=_absolute(WorkerSettings(**_given(market=self.market)).market),
            without=self.without,
        )

    def _desk(self) -> DeskSettings:
        given = _given(desk=self.desk, symbols=self.symbols, cycle_seconds=self.cycle_seconds)
        if not origin("cycle_seconds"):
            given.setdefault("cycle_seconds", DEFAULT_CYCLE_SECONDS)
        return DeskSettings(**given)

    def _api_port(self) -> int:
        if self.port is not None:
            return self.port
        # A full ApiSettings would ask for a key, which `ais dev` may still have to make.
        return ApiSettings(api_key="only-the-port-is-asked-of-it").api_port


@dataclass(frozen=True)
class Key:
    """Where the API key is: a file of ours, or something the person set; and how a shell gets at it."""

    file: Path | None
    told: str
    shell: str


def find_key() -> Key | None:
    """The person's own key, checked (raises ValidationError); None where none is set, and one is made in the folder."""
    source = origin("api_key")
    if source is None:
        return None
    ApiSettings()
    if source == "environment":
        return Key(None, "AIS_API_KEY of the environment", "$AIS_API_KEY")
    return Key(None, f"AIS_API_KEY in {DOTENV.absolute()}", f"$(sed -n 's/^AIS_API_KEY=//p' {DOTENV.absolute()})")


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _folder_from_environment() -> Path | None:
    named = os.environ.get("AIS_DATA_DIR")
    return Path(named) if named else None


def _absolute(market: str) -> str:
    """A child may be started elsewhere: `replay:bars.csv` and `replay:BTCUSDT=a.csv,ETHUSDT=b.csv` with whole paths."""
    kind, colon, files = market.partition(":")
    if not colon:
        return market
    if Path(files).is_file():
        return f"{kind}:{Path(files).resolve()}"
    parts = (part.rpartition("=") for part in files.split(","))
    return f"{kind}:" + ",".join(f"{symbol}{equals}{Path(file).resolve()}" for symbol, equals, file in parts)
