"""The environment of `ais dev` and of all its children: one desk, wherever the shell it was started in points."""

import os
from collections.abc import Mapping

# These say where things are, and here that is the data folder's to say: with a TEMPORAL_ADDRESS of production exported
# in the shell, the worker of a development desk would otherwise serve production, and its coordinator be started there.
NOT_INHERITED = ("TEMPORAL_", "AIS_DATABASE_URL", "AIS_METRICS_PORT", "AIS_SDK_METRICS_PORT", "AIS_API_PORT")


def adopt(desk: Mapping[str, str]) -> None:
    """From here on, whoever reads settings in this process or in a child reads those of this desk."""
    for name in [name for name in os.environ if name.startswith(NOT_INHERITED)]:
        del os.environ[name]
    os.environ.update(desk)


def for_python() -> dict[str, str]:
    """Unbuffered, so that the log of a child that was killed is complete."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}
