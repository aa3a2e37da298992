"""What children see of the environment in which `ais dev` was started."""

import os
from collections.abc import Mapping

# These say where things are, and here that is the data folder's to say: with a TEMPORAL_ADDRESS of production exported
# in the shell, the worker of a development desk would otherwise serve production.
NOT_INHERITED = ("TEMPORAL_", "AIS_DATABASE_URL", "AIS_METRICS_PORT", "AIS_SDK_METRICS_PORT", "AIS_API_PORT")


def inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}


def for_python(settings: Mapping[str, str]) -> dict[str, str]:
    """Unbuffered, so that the log of a child that was killed is complete."""
    return {**inherited(), "PYTHONUNBUFFERED": "1", **settings}
