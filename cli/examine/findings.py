"""What one examination by `ais doctor` knows and finds. The modules beside this one hold the checks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from temporalio.client import Client

import settings
from domain.desk.status import Status
from storage.database import Database

ASK_SECONDS = 3.0
CORRECT_FOLDER = "start `ais dev` there, or correct AIS_DATA_DIR"


class Verdict(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """One check: what was found, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    do: str = ""


def ok(check: str, found: str) -> Finding:
    """Everything is as it should be."""
    return Finding(check, Verdict.OK, found)


def warn(check: str, found: str, do: str) -> Finding:
    """It works, but a person should look; or it could not be checked."""
    return Finding(check, Verdict.WARN, found, do)


def fail(check: str, found: str, do: str) -> Finding:
    """Something that the desk needs is missing."""
    return Finding(check, Verdict.FAIL, found, do)


def unknown(check: str, needs: str) -> Finding:
    """Not checked, because an earlier check failed."""
    return warn(check, f"not known: {needs}", "first correct what failed above")


@dataclass
class Examination:
    """What the checks of one examination have found so far: later checks use what earlier ones found."""

    client: Client | None = None
    status: Status | None = None
    # The database's URL, once it has answered.
    url: str | None = None
    loaded: dict[type[settings.Settings], Any] = field(default_factory=dict)

    @property
    def desk(self) -> str | None:
        """The desk that the settings name; None if they cannot be read."""
        found: settings.DeskSettings | None = self.loaded.get(settings.DeskSettings)
        return found.desk if found else None


async def ask(url: str, work: Callable[[Any], Any]) -> Any:
    """What `work` returns from the database, within ASK_SECONDS. Raises DatabaseUnavailable."""
    database = Database(url, threads=1, timeout_seconds=ASK_SECONDS, application_name="ais-cli")
    try:
        return await database.run(work)
    finally:
        database.close()
