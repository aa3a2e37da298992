"""The wheel, which is what the image installs, holds everything that a command needs."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.house.sources import ROOT

SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
NOT_SHIPPED = {"bench", "tests"}
LEFT_OUT = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests", "bench", "docs")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked in a folder of its own, built from a copy so that no build folder stays."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(folder / "source")], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_every_package_is_in_the_package_list() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")} - NOT_SHIPPED
    patterns = SETUP["packages"]["find"]["include"]
    assert packages == {name for name in packages if any(fnmatch(name, pattern) for pattern in patterns)}
    assert {file.stem for file in ROOT.glob("*.py")} == set(SETUP["py-modules"])


@pytest.mark.parametrize(
    "module", [*SETUP["py-modules"], "replay", "deploy", "activities", "api", "storage", "workflows"]
)
def test_the_wheel_holds_every_module(installed: Path, module: str) -> None:
    assert (installed / module).is_dir() or (installed / f"{module}.py").is_file()


@pytest.mark.parametrize("command", [[], ["replay"], ["dev"]])
def test_a_command_runs_from_the_wheel_alone(installed: Path, tmp_path: Path, command: list[str]) -> None:
    code = "import sys, cli; assert cli.__file__.startswith(sys.path[0]), cli.__file__; sys.argv[0] = 'ais'; cli.main()"
    start = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {code}"]
    done = subprocess.run(
        [*start, *command, "--help"], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
