"""What must not be committed."""

import re
import subprocess
import tomllib

import pytest

from tests.house.sources import ROOT, committed_files

# Put together from halves, so that this file does not name what it forbids.
MACHINE_PATHS = re.compile("|".join(["/" + "work/", "/tmp/" + "exp", "/" + "root/", "/ho" + "me/", "/Use" + "rs/"]))
REGISTRIES = re.compile(
    "|".join(
        [
            "pypi" + r"\.org",
            "pythonhosted" + r"\.org",
            "npmjs" + r"\.",
            "--(extra-)?index" + "-url",
            "--find" + "-links",
        ]
    )
)
ALLOWED_FLAG = "--no-emit-" + "index-url"


def _hits(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in committed_files()
        if path.suffix not in (".png", ".gz", ".js", ".css")
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line.replace(ALLOWED_FLAG, ""))
    ]


def test_no_path_of_somebodys_machine_is_committed() -> None:
    assert not _hits(MACHINE_PATHS), "Write it relative to the repository."


def test_no_package_registry_is_named() -> None:
    assert not _hits(REGISTRIES), "Which index is used is for the machine's own pip configuration to say."


def test_requirements_are_locked_with_hashes() -> None:
    locked = ["requirements.txt", "requirements-dev.txt", "requirements-audit.txt", "requirements-docs.txt"]
    for name in [*locked, "bench/peers/requirements.txt"]:
        text = (ROOT / name).read_text()
        packages = re.findall(r"^[a-z0-9][^ =]*==", text, re.MULTILINE)
        blocks = re.findall(r"^[a-z0-9][^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)

        assert len(packages) == len(blocks) > 0, f"Run `make lock`: {name} has an entry without a hash."


def test_no_lock_file_that_names_an_index() -> None:
    assert not (ROOT / "uv.lock").exists() or (ROOT / "uv.lock") not in committed_files(), "Remove uv.lock from git."


@pytest.mark.parametrize("secret", [".env", ".ais", "api-key"])
def test_secrets_and_data_stay_out(secret: str) -> None:
    committed = [path for path in committed_files() if path.name == secret or secret in path.relative_to(ROOT).parts]

    assert not committed, f"git rm --cached {committed}, and change the secret."


def test_continuous_integration_is_short_and_runs_what_people_run() -> None:
    script = (ROOT / ".ci/run").read_text()

    assert len(script.splitlines()) < 20
    assert [line for line in script.splitlines() if line.startswith("make ")] == [
        "make install",
        "make check",
        "make site",
        "make test",
        "make test-oldest",
    ]


def test_make_knows_its_targets() -> None:
    targets = [
        "install", "run", "test", "test-thorough", "test-oldest", "check", "races", "chaos", "chaos-mutants", "soak", "bench",
        "bench-peers", "lock", "audit-deps", "docs", "site", "pictures",
    ]  # fmt: skip
    # One that it does not know is named and ends it.
    done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="tags of a folder around an archive are not ours")
def test_a_tag_names_the_version_of_its_commit() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    done = subprocess.run(["git", "tag", "--points-at", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    tags = [tag for tag in done.stdout.split() if re.fullmatch(r"v\d.*", tag)]
    assert not tags or tags == [f"v{version}"], "CONTRIBUTING.md, Releases"
    headings = re.findall(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert not tags or headings[:1] == [version], "CONTRIBUTING.md, Releases"
