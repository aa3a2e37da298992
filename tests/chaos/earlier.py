"""The earlier release whose workers take part in some rounds: which commit it is, and its code in a folder of its own.

Its workers are started with the environment and the packages of this release's. What starts them is of this tree: the zygote,
and the clock that a fault may step. So is the check of what the SDK hands a run: without it a worker of an earlier release ends
a run without signals of its history, or in a way that no release can replay, and no later release can make up for that.
"""

import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.forking import ROOT

NOBODY = "none"
OF_THIS_TREE = ("tests/chaos/zygote.py", "tests/chaos/stepped_clock.py", "workflows/begun.py", "workflows/runner.py")
MIGRATIONS = "storage/migrations/versions"
RULES = "domain/desk/versions.py"


class NotThere(Exception):
    """No earlier release takes part; the text is a sentence that says why."""


@dataclass(frozen=True)
class Earlier:
    """`schema` is the newest version of the coordinator's rules that its workers know."""

    name: str
    source: Path
    schema: int


def unpacked(named: str, folder: Path, root: Path = ROOT) -> Earlier:
    """The release that is named, or the one that `commit_of` chooses. Raises NotThere."""
    if named == NOBODY:
        raise NotThere("nobody asked for one")
    commit = commit_of(named, root)
    archive = folder.with_suffix(".tar")
    folder.mkdir(parents=True)
    _git(root, "archive", "--output", str(archive), commit)
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()
    name = named or _git(root, "describe", "--tags", "--always", commit)
    found = Earlier(name, folder, _newest_rules(folder, name))
    if _migrations(folder) != _migrations(root):
        raise NotThere(f"a worker of {name} does not start on this schema of the database")
    for file in OF_THIS_TREE:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, folder / file)
    return found


def commit_of(named: str, root: Path = ROOT) -> str:
    """A commit: of this name; else of the newest release's tag; else the one that made the schema of the database what it is.

    Older workers than that do not start on it. Raises NotThere.
    """
    if not (root / ".git").exists():
        raise NotThere("this folder is no clone with a history")
    head = _git(root, "rev-parse", "HEAD")
    if named:
        return _git(root, "rev-parse", "--verify", f"{named}^{{commit}}")
    tags = _git(root, "tag", "--merged", head, "--sort=-version:refname", "--list", "v[0-9]*").split()
    found = [_git(root, "rev-parse", f"{tag}^{{commit}}") for tag in tags]
    found.append(_git(root, "rev-list", "--max-count=1", head, "--", MIGRATIONS))
    others = [commit for commit in found if commit and commit != head]
    if not others:
        raise NotThere("no release has a tag, and no older commit has this schema of the database")
    return others[0]


def _git(root: Path, *arguments: str) -> str:
    """Raises NotThere."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotThere(f"git does not start: {error}") from error
    if done.returncode:
        raise NotThere(f"git {arguments[0]}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.strip()


def _newest_rules(source: Path, name: str) -> int:
    text = (source / RULES).read_text() if (source / RULES).exists() else ""
    if not (found := re.search(r"^SCHEMA_VERSION = (\d+)$", text, re.MULTILINE)):
        raise NotThere(f"{name} has no {RULES}")
    return int(found[1])


def _migrations(source: Path) -> set[str]:
    return {file.name for file in (source / MIGRATIONS).glob("*.py")}
