"""README.md and docs/ name only what there is: commands, make targets, files, guards, and places in other pages."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

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


def _code(text: str) -> str:
    """What a reader may copy: shell blocks, and code in running text."""
    blocks = [body for language, body in FENCE.findall(text) if language == "sh"]
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", FENCE.sub("", text))])


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _shell_lines(page: Path) -> Iterator[list[str]]:
    """The words of each `ais …` on a page."""
    for line in re.findall(r"(?:^|[\s/])ais ((?:[a-z-]+)\b[^`\n|]*)", _code(page.read_text()), re.MULTILINE):
        yield shlex.split(line.split("#")[0].split(";")[0])


def _unknown(words: list[str]) -> list[str]:
    name, *rest = words
    if name in GROUPS:
        if not rest:
            return []
        name, *rest = f"{name} {rest[0]}", *rest[1:]
    if name not in COMMANDS:
        return [f"ais {name}"]
    flags = {option for known in COMMANDS[name].params for option in [*known.opts, *known.secondary_opts]}
    return [f"ais {name} {flag}" for flag in rest if flag.startswith("--") and flag not in {*flags, "--help"}]


def test_every_ais_command_and_flag_exists() -> None:
    wrong = [f"{page.name}: {what}" for page in PAGES for words in _shell_lines(page) for what in _unknown(words)]

    assert not wrong, f"`ais` does not have: {wrong}"


def test_every_command_is_on_the_page_of_commands() -> None:
    """Its options are on the page that is written by them, docs/cli.md."""
    rows = [row for row in (ROOT / "docs/commands.md").read_text().splitlines() if row.startswith("| `ais ")]
    missing = [f"ais {command}" for command in COMMANDS if not any(f"`ais {command}`" in row for row in rows)]

    assert COMMANDS
    assert not missing, f"Add a row to the table of commands in docs/commands.md for: {missing}"


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(page.name, name) for page in PAGES for name in re.findall(r"\bmake ([a-z-]+)\b", _code(page.read_text()))}
    missing = sorted((page, name) for page, name in named if name not in targets)

    assert named
    assert not missing, f"The Makefile does not have these targets: {missing}"


def test_every_file_that_is_named_exists() -> None:
    paths = {str(path.relative_to(ROOT)) for path in committed_files()}
    known = paths | {f"{parent}/" for path in paths for parent in Path(path).parents}
    # A table about one package may name its files alone: the ends of paths, from any slash on.
    ends = {path[place.end() :] for path in known for place in re.finditer("/", path)}
    named = {(page.name, name) for page in PAGES for name in NAMED_FILE.findall(page.read_text()) if "<" not in name}
    missing = sorted((page, name) for page, name in named if name not in known | ends | NOT_OURS)

    assert named
    assert not missing, f"These files are not there: {missing}"


def test_every_setting_that_is_named_exists() -> None:
    known = {setting.variable for setting in catalogue()}
    named = {(page.name, name) for page in PAGES for name in re.findall(r"\bAIS_[A-Z_]+[A-Z]\b", page.read_text())}
    missing = sorted((page, name) for page, name in named if name not in known)

    assert named
    assert not missing, f"These settings are not there: {missing}"


@cache
def _anchors(page: Path) -> frozenset[str]:
    return frozenset(map(_anchor, re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)))


def _leads_somewhere(page: Path, target: str) -> bool:
    file, _, anchor = target.partition("#")
    found = (page.parent / file) if file else page
    return found.is_file() and (not anchor or anchor in _anchors(found))


def test_every_link_leads_somewhere() -> None:
    links = [(page, target) for page in PAGES for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text())]
    broken = [f"{page.name}: {target}" for page, target in links if not _leads_somewhere(page, target)]

    assert links
    assert not broken, f"These links lead nowhere: {broken}"


def test_every_signal_that_is_named_exists() -> None:
    lines = [line for page in PAGES for line in re.findall(r"workflow signal[^`\n]*", _code(page.read_text()))]
    named = set(re.findall(r"--name (\w+)", "\n".join(lines)))

    assert named
    assert named <= {kind.value for kind in CommandKind}


def test_every_guard_has_a_row() -> None:
    rows = set(re.findall(r"^\| `(\w+)", (ROOT / "docs/risk.md").read_text(), re.MULTILINE))
    missing = [guard.__name__ for guard in GUARDS if guard.__name__ not in rows]

    assert not missing, f"Add a row to docs/risk.md for: {missing}"
