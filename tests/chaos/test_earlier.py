"""Which commit is the earlier release, and when there is none."""

import subprocess
from pathlib import Path

import pytest

from tests.chaos.earlier import MIGRATIONS, NOBODY, OF_THIS_TREE, RULES, NotThere, commit_of, unpacked


class Repository:
    """A clone in miniature: the rules' version, a migration, and what starts a worker."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._git("init", "--quiet")
        for file in OF_THIS_TREE:
            self._write(file, "this tree's")
        self._write(RULES, "SCHEMA_VERSION = 4\n")
        self.commit(f"{MIGRATIONS}/r0001.py")

    def commit(self, file: str, text: str = "") -> str:
        """One more commit, with this file; its name."""
        self._write(file, text)
        self._git("add", "--all")
        self._git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", file)
        return self._git("rev-parse", "HEAD")

    def tag(self, name: str) -> None:
        """Of the newest commit."""
        self._git("tag", name)

    def _write(self, file: str, text: str) -> None:
        (self.root / file).parent.mkdir(parents=True, exist_ok=True)
        (self.root / file).write_text(text)

    def _git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Repository:
    root = tmp_path / "clone"
    root.mkdir()
    return Repository(root)


def test_without_tags_it_is_the_oldest_that_starts_on_this_schema(clone: Repository) -> None:
    schema = clone.commit(f"{MIGRATIONS}/r0002.py")
    clone.commit("README.md")
    clone.commit("worker.py")
    assert commit_of("", clone.root) == schema


def test_the_newest_tag_comes_first_but_for_the_commit_itself(clone: Repository) -> None:
    clone.tag("v0.9.0")
    clone.commit("README.md")
    clone.tag("v0.10.0")
    tagged = commit_of("v0.10.0", clone.root)
    clone.commit("worker.py")
    assert commit_of("", clone.root) == tagged
    clone.tag("v0.11.0")
    assert commit_of("", clone.root) == tagged


def test_an_earlier_release_is_unpacked_with_our_own_starters(clone: Repository, tmp_path: Path) -> None:
    first = clone.commit("worker.py", "the old one")
    clone.commit("worker.py", "the new one")
    clone.commit(OF_THIS_TREE[0], "the new starter")
    found = unpacked(first, tmp_path / "there", clone.root)
    assert (found.schema, (found.source / "worker.py").read_text()) == (4, "the old one")
    assert (found.source / OF_THIS_TREE[0]).read_text() == "the new starter"


def test_of_another_schema_of_the_database_nobody_takes_part(clone: Repository, tmp_path: Path) -> None:
    first = clone.commit("README.md")
    clone.commit(f"{MIGRATIONS}/r0002.py")
    with pytest.raises(NotThere, match="does not start on this schema"):
        unpacked(first, tmp_path / "there", clone.root)


def test_a_shallow_clone_an_archive_and_a_wrong_name_say_why(clone: Repository, tmp_path: Path) -> None:
    with pytest.raises(NotThere, match="no release has a tag"):
        commit_of("", clone.root)
    with pytest.raises(NotThere, match="no clone"):
        commit_of("", tmp_path)
    with pytest.raises(NotThere, match="rev-parse"):
        commit_of("v9", clone.root)
    with pytest.raises(NotThere, match="nobody asked"):
        unpacked(NOBODY, tmp_path / "there", clone.root)
