"""What each mode needs before it may start."""

from dataclasses import dataclass

from pydantic import ValidationError

from settings.models import (
    LIVE_KEY,
    ApiSettings,
    AsterSettings,
    DeskSettings,
    PaperVenueSettings,
    WorkerSettings,
)


class NotAllowed(Exception):
    """The configured mode lacks settings; the text names everything that is missing."""


@dataclass(frozen=True)
class VenueConfig:
    """The settings that decide where a desk trades."""

    desk: DeskSettings
    worker: WorkerSettings
    paper: PaperVenueSettings
    aster: AsterSettings


def check_settings(config: VenueConfig) -> None:
    """Raises NotAllowed if the configured mode lacks settings, and names them."""
    if missing := missing_for(config):
        raise NotAllowed(f"AIS_MODE={config.desk.mode} needs {'; '.join(missing)}")


def missing_for(config: VenueConfig) -> list[str]:
    """The settings that the configured mode lacks, as text for people."""
    if config.desk.mode == "paper":
        return []
    missing = [] if config.aster.aster_account_id else ["AIS_ASTER_ACCOUNT_ID"]
    if config.desk.mode == "live":
        missing += [] if config.aster.enable_live_trading else ["AIS_ENABLE_LIVE_TRADING=true"]
        try:
            # The worker reads the API's key only in this mode.
            fit = ApiSettings.load().fit_for_live
        except ValidationError:
            fit = False
        missing += [] if fit else [LIVE_KEY]
    return missing
