"""The environment of `ais dev` and all its children. It points to this desk alone, whatever the shell had exported."""

import os
from collections.abc import Mapping

# These variables say where things are; under `ais dev` only the data folder may say that. Otherwise, if the shell exports
# a production TEMPORAL_ADDRESS, the worker of a development desk would serve production and start its coordinator there.
NOT_INHERITED = (
    "TEMPORAL_", "AIS_DATABASE_URL", "AIS_REDIS_URL", "AIS_METRICS_PORT", "AIS_SDK_METRICS_PORT", "AIS_API_PORT",
)  # fmt: skip


def adopt(desk: Mapping[str, str]) -> None:
    """From here on, this process and its children read the settings of this desk."""
    for name in [name for name in os.environ if name.startswith(NOT_INHERITED)]:
        del os.environ[name]
    os.environ.update(desk)


def for_python() -> dict[str, str]:
    """The environment for Python children: unbuffered, so that the log of a killed child is complete."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def for_programs() -> dict[str, str]:
    """The environment for a program of somebody else: without our settings, among which are secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AIS_")}
