"""Explains settings to people: what is wrong with a value, and the page of all settings (`make docs`)."""

import os
import re
from dataclasses import dataclass
from itertools import groupby
from typing import get_args

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from settings.models import MODELS
from settings.running_stack import PREFIX, Settings, variable

INTRODUCTION = """\
# Settings

<!-- Written by `make docs` from settings/models.py: change that, not this. -->

When a process starts, it reads the settings it needs. Each value comes from the first of these sources that has one:

1. the environment,
2. a running `ais dev`, if `--data-dir` or `AIS_DATA_DIR` names its data folder,
3. the file `.env` in the working directory,
4. the default.

An empty variable counts as not set. Only an empty `AIS_AGENTS` or `AIS_AGENT_SECONDS` is refused: write `none` for no agent.
A wrong value stops the process with a line that names the variable, the value and what is allowed.

Temporal's own settings say where Temporal is: `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`,
`TEMPORAL_TLS*` and the profiles of `temporal.toml` work as they do for the `temporal` command. The defaults are
`127.0.0.1:7233` and `default`.
"""


@dataclass(frozen=True)
class Setting:
    """One row of docs/settings.md."""

    variable: str
    default: str
    unit: str
    allowed: str
    description: str
    secret: bool
    group: str
    used_by: str


def catalogue() -> list[Setting]:
    """All settings, in the order of MODELS."""
    return [_row(model, name, info) for model in MODELS for name, info in model.model_fields.items()]


def _row(model: type[Settings], name: str, info: FieldInfo) -> Setting:
    extra = _extra(info)
    return Setting(
        variable=variable(name), default=_shown_default(info), unit=extra["unit"], allowed=extra["allowed"],
        description=info.description or "", secret=_is_secret(info),
        group=(model.__doc__ or "").strip(), used_by=model.used_by,
    )  # fmt: skip


def _extra(info: FieldInfo) -> dict[str, str]:
    return {key: str(value) for key, value in dict(info.json_schema_extra or {}).items()}  # type: ignore[arg-type]


def _is_secret(info: FieldInfo) -> bool:
    return SecretStr in (info.annotation, *get_args(info.annotation))


def _shown_default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if isinstance(info.default, bool):
        return str(info.default).lower()
    shown = ",".join(info.default) if isinstance(info.default, tuple) else str(info.default)
    return "none" if shown in ("", "None", "{}") else shown.removesuffix(".0")


def unknown_variables() -> list[str]:
    """AIS_ variables in the environment that are not settings: typos that would otherwise be silently ignored."""
    known = {setting.variable for setting in catalogue()}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def explain(error: ValidationError) -> str:
    """One line for each wrong setting: variable, value (never a secret's), what is allowed."""
    return "\n".join(_explain_one(detail) for detail in error.errors(include_url=False))


def _explain_one(detail: ErrorDetails) -> str:
    field = str(detail["loc"][0]) if detail["loc"] else ""
    info = next((model.model_fields[field] for model in MODELS if field in model.model_fields), None)
    if info is None:
        # An error of a whole model names fields. People know variables: `AIS_HARD_DRAWDOWN (0.01) is below …`.
        fields = {name for model in MODELS for name in model.model_fields if "_" in name}
        text = str(detail["msg"]).removeprefix("Value error, ")
        return re.sub(r"\w+", lambda word: variable(word[0]) if word[0] in fields else word[0], text)
    if detail["type"] == "missing":
        wrong = "is not set"
    elif _is_secret(info):
        wrong = f"is set, but {detail['msg']}"
    else:
        value = detail["input"]
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        wrong = f"is {shown!r}, which is not allowed"
    return f"{variable(field)} {wrong}. Allowed: {_extra(info)['allowed']}"


def page() -> str:
    """The text of docs/settings.md. A test fails if the file differs."""
    head = "| variable | default | unit | allowed | meaning |\n|---|---|---|---|---|\n"
    text = INTRODUCTION
    for (group, used_by), rows in groupby(catalogue(), key=lambda setting: (setting.group, setting.used_by)):
        text += f"\n## {group.removesuffix('.')}\n\nRead by: {used_by}.\n\n{head}"
        for row in rows:
            cells = (f"`{row.variable}`", f"`{row.default}`", row.unit, row.allowed, row.description)
            text += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    return text
