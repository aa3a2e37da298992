"""README.md and docs/ name only what there is: commands, make targets, files, guards, and places in other pages."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cli.app import app
from domain.desk.states import CommandKind
from domain.risk.guards import GUARDS
from settings import catalogue
from tests.house.sources import ROOT, committed_files

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUPS: dict[str, Any] = {}
COMMANDS: dict[str, Any] = {}
for _name, _command in get_command(app).commands.items():  # type: ignore[attr-defined]
    (GROUPS if hasattr(_command, "commands") else COMMANDS)[_name] = _command
    COMMANDS |= {f"{_name} {name}": command for name, command in getattr(_command, "commands", {}).items()}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"`((?:[\w.<>-]+/)*[\w.<>-]*\.(?:py|md|yml|yaml|toml|txt|json)|[\w/]+/)`")
# Made by a running stack, Temporal's own, or the reader's.
NOT_OURS = {
    "ports.json",
    "temporal.toml",
    "docker-compose.override.yml",
    "outside.py",
    "bars.replay.json",
    "dist/sbom.json",
}
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _code(text: str) -> str:
    """What a reader may copy: shell blocks, and code in running text."""
    blocks = [body for language, body in FENCE.findall(text) if language == "sh"]
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", FENCE.sub("", text))])


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pages
def test_every_ais_command_and_flag_exists(page: Path) -> None:
    wrong = []
    for line in re.findall(r"(?:^|[\s/])ais ((?:[a-z-]+)\b[^`\n|]*)", _code(page.read_text()), re.MULTILINE):
        name, *rest = shlex.split(line.split("#")[0].split(";")[0])
        if name in GROUPS:
            if not rest:
                continue
            name, *rest = f"{name} {rest[0]}", *rest[1:]
        known = COMMANDS[name].params if name in COMMANDS else []
        flags = {option for parameter in known for option in [*parameter.opts, *parameter.secondary_opts]}
        wrong += [f"ais {name}"] if name not in COMMANDS else []
        wrong += [f"ais {name} {flag}" for flag in rest if flag.startswith("--") and flag not in {*flags, "--help"}]

    assert not wrong, f"{page.name} names what `ais` does not have: {wrong}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_on_the_page_of_commands(command: str) -> None:
    """Its options are on the page that is written by them, docs/cli.md."""
    rows = [row for row in (ROOT / "docs/commands.md").read_text().splitlines() if row.startswith("| `ais ")]

    assert [row for row in rows if f"`ais {command}`" in row], (
        f"Add a row to the table of commands in docs/commands.md for: ais {command}"
    )


@pages
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", _code(page.read_text())))

    assert named <= targets, f"{page.name} names targets that the Makefile does not have: {sorted(named - targets)}"


@pages
def test_every_file_that_is_named_exists(page: Path) -> None:
    paths = {str(path.relative_to(ROOT)) for path in committed_files()}
    folders = {f"{parent}/" for path in paths for parent in map(str, (ROOT / path).relative_to(ROOT).parents)}
    known = paths | folders
    named = {name for name in NAMED_FILE.findall(page.read_text()) if "<" not in name} - NOT_OURS
    # A table about one package may name its files alone.
    missing = [name for name in named if name not in known and not any(path.endswith(f"/{name}") for path in known)]

    assert not missing, f"{page.name} names files that are not there: {sorted(missing)}"


@pages
def test_every_setting_that_is_named_exists(page: Path) -> None:
    known = {setting.variable for setting in catalogue()}
    missing = set(re.findall(r"\bAIS_[A-Z_]+[A-Z]\b", page.read_text())) - known

    assert not missing, f"{page.name} names settings that are not there: {sorted(missing)}"


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        found = (page.parent / file) if file else page
        headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE) if anchor else []
        is_there = found.is_file() and (not anchor or anchor in map(_anchor, headings))
        broken += [] if is_there else [target]

    assert not broken, f"{page.name} has links that lead nowhere: {broken}"


@pages
def test_every_signal_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"--name (\w+)", "\n".join(re.findall(r"workflow signal[^`\n]*", _code(page.read_text())))))

    assert named <= {kind.value for kind in CommandKind}


def test_every_guard_has_a_row() -> None:
    rows = set(re.findall(r"^\| `(\w+)", (ROOT / "docs/risk.md").read_text(), re.MULTILINE))
    missing = [guard.__name__ for guard in GUARDS if guard.__name__ not in rows]

    assert not missing, f"Add a row to docs/risk.md for: {missing}"
