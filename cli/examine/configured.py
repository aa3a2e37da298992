"""Checks of `ais doctor`: the settings."""

import asyncio
from pathlib import Path

from pydantic import ValidationError

import settings
from cli.examine import findings
from cli.examine.findings import Examination, Finding, fail, ok, unknown, warn
from settings.modes import VenueConfig, missing_for
from storage.audit.checkpoints import NotSigned, read_key

_MODELS: dict[type[settings.Settings], str] = {
    settings.DeskSettings: "the desk",
    settings.DatabaseSettings: "the database",
    settings.ApiSettings: "the API",
    settings.WorkerSettings: "the worker",
    settings.AgentSettings: "the agents",
    settings.PaperVenueSettings: "the paper venue",
    settings.AsterSettings: "the exchange",
    settings.LimitSettings: "the limits",
    settings.AuditSettings: "the audit chain",
    settings.DiskSettings: "disk space",
    settings.NotifySettings: "notifications",
    settings.RedisSettings: "Redis",
    settings.TraceSettings: "traces",
    settings.LogSettings: "logging",
}


def settings_of(seen: Examination) -> list[Finding]:
    """Loads every model of settings for the later checks, and says which cannot be read."""
    strange = settings.unknown_variables()
    found = [
        warn("settings", f"{name} is not a setting of AIS", "correct its name: docs/settings.md lists them all")
        for name in strange
    ] or [ok("settings", "every AIS_ variable is a setting")]
    return [*found, *(_load(seen, model) for model in _MODELS)]


def _load(seen: Examination, model: type[settings.Settings]) -> Finding:
    check = f"settings of {_MODELS[model]}"
    try:
        seen.loaded[model] = model.load()
    except ValidationError as error:
        missing = all(detail["type"] == "missing" for detail in error.errors(include_url=False))
        text = settings.explain(error).replace("\n", "; ")
        if missing and model is settings.ApiSettings:
            return warn(check, text, "set it where the API runs; `ais` itself does not need it")
        return fail(check, text, "correct it: docs/settings.md says what is allowed")
    except settings.NotConfigured as error:
        return fail(check, str(error), findings.CORRECT_FOLDER)
    return ok(check, "can be read")


def mode(seen: Examination) -> Finding:
    """Whether the mode has all the settings that it needs."""
    models = (
        settings.DeskSettings, settings.WorkerSettings, settings.PaperVenueSettings, settings.AsterSettings,
    )  # fmt: skip
    if any(model not in seen.loaded for model in models):
        return unknown("mode", "settings cannot be read")
    desk, worker, paper, aster = (seen.loaded[model] for model in models)
    if missing := missing_for(VenueConfig(desk, worker, paper, aster)):
        return warn("mode", f"AIS_MODE={desk.mode} needs {'; '.join(missing)}", "set them where the worker runs")
    return ok("mode", f"{desk.mode}; nothing is missing for it")


async def audit_key(seen: Examination) -> list[Finding]:
    """Checked only if a key is configured; in a thread, because a file system may hang."""
    found: settings.AuditSettings | None = seen.loaded.get(settings.AuditSettings)
    if found is None or not found.audit_key:
        return []
    try:
        await asyncio.wait_for(asyncio.to_thread(read_key, Path(found.audit_key)), findings.ASK_SECONDS)
    except (NotSigned, TimeoutError) as error:
        text = f"AIS_AUDIT_KEY: {str(error) or 'the file could not be read in time'}"
        return [warn("audit key", text, "`ais audit key` makes one; until then the worker signs no checkpoint")]
    return [ok("audit key", "AIS_AUDIT_KEY can sign checkpoints")]
