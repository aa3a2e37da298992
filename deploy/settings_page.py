"""Writes docs/settings.md from `settings.py`: `make docs`. A test fails when the page is not what this writes."""

from itertools import groupby

from settings import Setting, catalogue

INTRODUCTION = """\
# Settings

<!-- Written by `make docs` from settings.py: change that, not this. -->

Every process reads the ones that concern it when it starts, from the first of these that has a value:

1. the environment,
2. a running `ais dev`, where its data folder was named by `--data-dir` or `AIS_DATA_DIR`,
3. the file `.env` in the working directory,
4. the default.

A wrong value stops the process with a line that names the variable, the value and what is allowed.

Where Temporal is comes from Temporal's own settings: `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`,
`TEMPORAL_TLS*` and the profiles of `temporal.toml` work here as for the `temporal` command. Without any:
`127.0.0.1:7233`, `default`.
"""


def page() -> str:
    sections = groupby(catalogue(), key=lambda setting: (setting.group, setting.used_by))
    return INTRODUCTION + "".join(_section(group, used_by, list(rows)) for (group, used_by), rows in sections)


def _section(group: str, used_by: str, rows: list[Setting]) -> str:
    head = "| variable | default | unit | allowed | meaning |\n|---|---|---|---|---|\n"
    return f"\n## {group.removesuffix('.')}\n\nRead by: {used_by}.\n\n{head}" + "".join(map(_row, rows))


def _row(setting: Setting) -> str:
    cells = (f"`{setting.variable}`", f"`{setting.default}`", setting.unit, setting.allowed, setting.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    print(page(), end="")
