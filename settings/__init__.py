"""Every setting of AIS: its unit, default and what is allowed.

There is one model per concern; a process loads those that it needs. Importing this module reads nothing.

A value comes from the first of these that has one:

1. the environment (`AIS_DESK=main`),
2. a running `ais dev`, where its data folder was named by `--data-dir` or `AIS_DATA_DIR`,
3. the file `.env` in the working directory,
4. the default.

The folder comes before `.env`: somebody who names it means the desk that runs there, and a `.env` for another deployment
must not split one desk over two databases. A wrong value is an error that names the variable, the value and what is allowed:
see `explain`.
"""

from settings.explain import catalogue, explain, page, unknown_variables
from settings.models import (
    DESK_NAME,
    HOW_TO_MAKE_A_KEY,
    LIVE_KEY,
    AgentSettings,
    ApiSettings,
    AsterSettings,
    AuditSettings,
    DatabaseSettings,
    DeskName,
    DeskSettings,
    DiskSettings,
    LimitSettings,
    LogSettings,
    NotifySettings,
    PaperVenueSettings,
    RedisSettings,
    TableOwnerSettings,
    TraceSettings,
    WorkerSettings,
)
from settings.running_stack import (
    DOTENV,
    PORTS_FILE,
    NoRunningStack,
    NotConfigured,
    Settings,
    WrongTemporalSettings,
    absolute_folder,
    origin,
    temporal_connect_config,
)

__all__ = [
    "DESK_NAME",
    "DOTENV",
    "HOW_TO_MAKE_A_KEY",
    "LIVE_KEY",
    "PORTS_FILE",
    "AgentSettings",
    "ApiSettings",
    "AsterSettings",
    "AuditSettings",
    "DatabaseSettings",
    "DeskName",
    "DeskSettings",
    "DiskSettings",
    "LimitSettings",
    "LogSettings",
    "NoRunningStack",
    "NotConfigured",
    "NotifySettings",
    "PaperVenueSettings",
    "RedisSettings",
    "Settings",
    "TableOwnerSettings",
    "TraceSettings",
    "WorkerSettings",
    "WrongTemporalSettings",
    "absolute_folder",
    "catalogue",
    "explain",
    "origin",
    "page",
    "temporal_connect_config",
    "unknown_variables",
]
