"""Where a setting's value comes from: the environment, a running `ais dev`, `.env`; and where Temporal is.

Importing this module reads nothing.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from dotenv import dotenv_values
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from temporalio.envconfig import ClientConnectConfig

PREFIX = "AIS_"
DOTENV = Path(".env")
PORTS_FILE = "ports.json"


class NotConfigured(Exception):
    """The settings do not say how to connect this process; the text says what is wrong."""


class WrongTemporalSettings(NotConfigured):
    """Temporal's own settings cannot be read: a profile, its file, or a certificate named there."""

    def __init__(self, error: Exception) -> None:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        super().__init__(
            f"Temporal's settings cannot be read: {first}. Check the TEMPORAL_ variables and the files they name"
        )


class NoRunningStack(NotConfigured):
    """No `ais dev` has recorded itself in the named data folder."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"No `ais dev` runs in {data_dir} (it has no {PORTS_FILE}). Start it: ais dev --data-dir {data_dir}"
        )


class UnreadableFile(NotConfigured):
    """A file with settings cannot be read: another encoding, somebody else's, or no JSON."""

    def __init__(self, file: Path, error: Exception) -> None:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        super().__init__(f"{file.absolute()} cannot be read: {first}. Correct it, or run this in another folder")


class Settings(BaseSettings):
    """The base of all settings models: it reads the prefix, `.env`, and the values that a running `ais dev` recorded."""

    # Compose and shells hand on a variable that nobody filled in as an empty one: it counts as not set.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=DOTENV, env_ignore_empty=True, extra="ignore", frozen=True
    )

    used_by: ClassVar[str] = ""
    recorded_as: ClassVar[Mapping[str, str]] = {}
    """Our field -> the key under which `ais dev` records its value in ports.json."""

    def __init__(self, **values: Any) -> None:
        """Raises UnreadableFile for a `.env` in another encoding or of another user: to a kill, a traceback says nothing."""
        try:
            super().__init__(**values)
        except (OSError, UnicodeError) as error:
            raise UnreadableFile(DOTENV, error) from error

    @classmethod
    def load(cls, data_dir: Path | None = None) -> Self:
        """Read this model. Raises ValidationError (see `explain`), NoRunningStack or UnreadableFile."""
        recorded = dict(running_stack(data_dir) or {})
        # The key has its own file (mode 0600); it is never in ports.json, and not everybody may read it.
        if "api_key" in cls.recorded_as.values() and (file := recorded.get("api_key_file")):
            recorded["api_key"] = Path(file).read_text().strip()
        found = {field: recorded.get(key) for field, key in cls.recorded_as.items()}
        return cls(**{field: it for field, it in found.items() if it is not None and not _in_environment(field)})


def about(description: str, *, allowed: str, unit: str = "", **extra: Any) -> Any:
    """A field with its texts for docs/settings.md and for error messages."""
    return Field(description=description, json_schema_extra={"allowed": allowed, "unit": unit}, **extra)


class FolderSettings(Settings):
    """Where to find a running `ais dev`."""

    used_by = "API, worker, ais"

    data_dir: Path | None = about(
        "Data folder of a running `ais dev`; the process then uses its Temporal, database, desk and key. "
        "`--data-dir` overrides it.",
        default=None,
        allowed="the --data-dir of a running `ais dev`",
    )


def data_folder(data_dir: Path | None = None) -> Path | None:
    """The folder that `--data-dir`, AIS_DATA_DIR or `.env` names, as an absolute path; None if none of them does."""
    chosen = data_dir or FolderSettings().data_dir
    return absolute_folder(chosen) if chosen else None


def absolute_folder(folder: Path) -> Path:
    """The folder's absolute path. Raises NotConfigured for the home of a user that does not exist."""
    try:
        return folder.expanduser().resolve()
    except RuntimeError as error:
        raise NotConfigured(f"{folder} names no folder: {error}") from error


def running_stack(data_dir: Path | None = None) -> Mapping[str, Any] | None:
    """What the `ais dev` of the named folder has recorded; None if no folder is named."""
    folder = data_folder(data_dir)
    if folder is None:
        return None
    try:
        recorded: dict[str, Any] = json.loads((folder / PORTS_FILE).read_text())
    except FileNotFoundError:
        raise NoRunningStack(folder) from None
    except (OSError, ValueError) as error:
        raise UnreadableFile(folder / PORTS_FILE, error) from error
    return recorded


def temporal_connect_config(data_dir: Path | None = None) -> "ClientConnectConfig":
    """Arguments of `temporalio.client.Client.connect`. Raises NoRunningStack or WrongTemporalSettings.

    Temporal's own rules apply (TEMPORAL_* and profiles), and `.env` counts as environment. But if a data folder is in use
    and TEMPORAL_ADDRESS is not set, the folder alone decides: a profile's TLS and key belong to another cluster.
    An empty variable counts as not set: the SDK would take an empty TEMPORAL_API_KEY or TEMPORAL_TLS as a wish for TLS.
    """
    # Late, as SQLAlchemy is in `models`: it takes 20 MB and a third of the start of a replay, which needs neither.
    from temporalio.envconfig import ClientConfig

    recorded = running_stack(data_dir)
    exported = {name: value for name, value in os.environ.items() if value}
    if recorded and "TEMPORAL_ADDRESS" not in exported:
        return {"target_host": recorded["temporal_address"], "namespace": recorded["temporal_namespace"]}
    try:
        named = {name: value for name, value in dotenv_values(DOTENV).items() if value and name.startswith("TEMPORAL_")}
        loaded = ClientConfig.load_client_connect_config(override_env_vars={**named, **exported})
    except Exception as error:
        # The SDK's errors share no base class, and a person wrote everything that this reads.
        raise WrongTemporalSettings(error) from error
    return {"target_host": "127.0.0.1:7233", "namespace": "default", **loaded}


def origin(field: str) -> Literal["environment", ".env"] | None:
    """Where a field is set: in the environment, in `.env`, or nowhere (None)."""
    if _in_environment(field):
        return "environment"
    return ".env" if _is_set(field, dotenv_values(DOTENV)) else None


def _in_environment(field: str) -> bool:
    return _is_set(field, os.environ)


def _is_set(field: str, variables: Mapping[str, str | None]) -> bool:
    """Whether one of the variables is the field's and has a value: an empty one must not hide what is recorded elsewhere."""
    return any(value and name.upper() == variable(field) for name, value in variables.items())


def variable(field: str) -> str:
    """The environment variable of a field: `desk` is AIS_DESK."""
    return PREFIX + field.upper()
