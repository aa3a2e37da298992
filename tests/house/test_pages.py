"""README.md and docs/ name only what there is: commands, make targets, files, guards, and places in other pages."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from cli import app
from domain.risk import GUARDS
from domain.states import CommandKind
from settings import catalogue
from tests.house.sources import ROOT, committed_files

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"`((?:[\w.<>-]+/)*[\w.<>-]*\.(?:py|md|yml|yaml|toml|txt|json)|[\w/]+/)`")
# Made by a running stack, Temporal's own, or the reader's.
NOT_OURS = {"ports.json", "temporal.toml", "outside.py", "bars.replay.json"}
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
    for line in re.findall(r"(?:^|[\s/])ais ((?:[a-z]+)\b[^`\n|]*)", _code(page.read_text()), re.MULTILINE):
        name, *rest = shlex.split(line.split("#")[0].split(";")[0])
        flags = (
            {option for parameter in COMMANDS[name].params for option in parameter.opts} if name in COMMANDS else set()
        )
        wrong += [f"ais {name}"] if name not in COMMANDS else []
        wrong += [f"ais {name} {flag}" for flag in rest if flag.startswith("--") and flag not in {*flags, "--help"}]

    assert not wrong, f"{page.name} names what `ais` does not have: {wrong}"


@pages
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", _code(page.read_text())))

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
        anchors = {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)}
        broken += [target] if anchor and anchor not in anchors else []

    assert not broken, f"{page.name} has links that lead nowhere: {broken}"


@pages
def test_every_signal_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"--name (\w+)", "\n".join(re.findall(r"workflow signal[^`\n]*", _code(page.read_text())))))

    assert named <= {kind.value for kind in CommandKind}


def test_every_guard_has_a_row() -> None:
    rows = set(re.findall(r"^\| `(\w+)", (ROOT / "docs/risk.md").read_text(), re.MULTILINE))
    missing = [guard.__name__ for guard in GUARDS if guard.__name__ not in rows]

    assert not missing, f"Add a row to docs/risk.md for: {missing}"
