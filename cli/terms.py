"""What the settings fix for a desk: its terms, and the account that it trades."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydantic import ValidationError

import settings
from domain.desk.carried import Carried
from domain.desk.commands import NewTerms
from domain.desk.identity import fingerprint
from domain.desk.states import Mode, State
from domain.desk.terms import configured_terms, data_age
from domain.risk.limits import Limits


@dataclass(frozen=True)
class DeskTerms:
    """What a start fixes and a restart can change. Of the limits, only the one on the age of data follows the cycle."""

    desk: str
    mode: Mode
    symbols: tuple[str, ...]
    cycle_seconds: float
    limits: Limits
    kill_flattens: bool = False
    # The venue account's fingerprint. None if this process does not know it; the first reading then supplies it.
    account: str | None = None

    def terms(self) -> NewTerms:
        """The terms that a restart compares with those of an open coordinator."""
        return configured_terms(self, self.kill_flattens)

    def with_terms(self, terms: NewTerms) -> "DeskTerms":
        """The same, with these terms instead."""
        asked = terms.model_dump(exclude_none=True, exclude={"mode"})
        if terms.symbols is not None:
            asked["symbols"] = tuple(terms.symbols)
        if terms.cycle_seconds is not None:
            age = data_age(self.limits.max_data_age_seconds, self.cycle_seconds, terms.cycle_seconds)
            asked["limits"] = Limits.model_validate({**self.limits.model_dump(), "max_data_age_seconds": age})
        return replace(self, **asked)

    def carried(self, kill_number: int, database_id: str | None, search_attributes: bool) -> Carried:
        """What the first run of a coordinator starts with."""
        now = datetime.now(UTC)
        return Carried(
            desk=self.desk,
            mode=self.mode,
            symbols=list(self.symbols),
            cycle_seconds=self.cycle_seconds,
            limits=self.limits,
            kill_flattens=self.kill_flattens,
            database_id=database_id,
            account=self.account,
            database_seen_at=now,
            search_attributes=search_attributes,
            started_at=now,
            since=now,
            kill_number=kill_number,
            latched_number=kill_number,
            # Command ids may be reused, and the database has their instructions. Each kill counted for one round at most.
            forgotten_rounds=kill_number,
            shown_state=State.RUNNING if search_attributes else None,
        )


def plan(desk: settings.DeskSettings, limits: settings.LimitSettings, account: str | None = None) -> DeskTerms:
    """What a start fixes, taken from the settings."""
    return DeskTerms(
        desk=desk.desk,
        mode=Mode(desk.mode),
        symbols=desk.symbols,
        cycle_seconds=desk.cycle_seconds,
        limits=limits.limits(desk.cycle),
        kill_flattens=limits.kill_flattens,
        account=account,
    )


def account_of(desk: settings.DeskSettings) -> str | None:
    """The fingerprint of the venue account; None if these settings do not name it."""
    if desk.mode == "paper":
        return fingerprint("")
    account_id = settings.AsterSettings.load().aster_account_id
    return fingerprint(account_id.get_secret_value()) if account_id else None


def set_terms() -> NewTerms:
    """The terms that somebody has set here: a default says nothing about a desk. Empty if the settings are wrong."""
    try:
        desk, limits = settings.DeskSettings.load(), settings.LimitSettings.load()
    except ValidationError:
        return NewTerms()
    named = desk.model_fields_set | limits.model_fields_set
    return (
        plan(desk, limits)
        .terms()
        .model_copy(update={name: None for name in NewTerms.model_fields if name not in named})
    )
