"""The settings of an API process. A module of its own, so that `ais api` can check them before it imports the API."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

import settings as configuration


@dataclass(frozen=True)
class AppSettings:
    """All settings of the API. `temporal` are arguments of `Client.connect`."""

    api: configuration.ApiSettings
    desk: configuration.DeskSettings
    database: configuration.DatabaseSettings
    log: configuration.LogSettings
    disks: configuration.DiskSettings
    traces: configuration.TraceSettings
    temporal: Mapping[str, Any]
    notify: configuration.NotifySettings
    redis: configuration.RedisSettings

    @classmethod
    def load(cls) -> "AppSettings":
        """Reads the environment, `.env` or a running `ais dev`. A wrong value ends the process with a message that names it."""
        try:
            found = cls(
                api=configuration.ApiSettings.load(),
                desk=configuration.DeskSettings.load(),
                database=configuration.DatabaseSettings.load(),
                log=configuration.LogSettings.load(),
                disks=configuration.DiskSettings.load(),
                traces=configuration.TraceSettings.load(),
                temporal=dict(configuration.temporal_connect_config()),
                notify=configuration.NotifySettings.load(),
                redis=configuration.RedisSettings.load(),
            )
        except ValidationError as error:
            raise SystemExit(configuration.explain(error)) from None
        except configuration.NotConfigured as error:
            raise SystemExit(str(error)) from None
        if found.desk.mode == "live" and not found.api.fit_for_live:
            raise SystemExit(
                f"AIS_MODE=live needs {configuration.LIVE_KEY}. Make one: {configuration.HOW_TO_MAKE_A_KEY}"
            )
        return found
