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
import yaml

from cli import app as cli
from tests.agents.builders import PLUGIN
from tests.house.sources import ROOT

SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
NOT_SHIPPED = {"bench", "tests"}
LEFT_OUT = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests", "bench", "docs")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked in a folder of its own, built from a copy so that no build folder stays."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    assets = folder / "source/manual/site/assets/javascripts"
    assets.mkdir(parents=True, exist_ok=True)
    for file in (assets / "bundle.js", assets.parents[1] / "index.html"):
        file.write_text("as `make site` would have written it")
    return install(folder / "source", folder / "installed")


def install(source: Path, target: Path) -> Path:
    """What pip makes of a package: its wheel, unpacked."""
    wheels = source.with_name(f"{source.name}.wheels")
    wheels.mkdir()
    # The hook that pip calls, without the two seconds of pip around it.
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(wheels)], cwd=source, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_every_package_is_in_the_package_list() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")} - NOT_SHIPPED
    patterns = SETUP["packages"]["find"]["include"]
    assert packages == {name for name in packages if any(fnmatch(name, pattern) for pattern in patterns)}
    assert {file.stem for file in ROOT.glob("*.py")} == set(SETUP["py-modules"])


def test_the_wheel_holds_every_module(installed: Path) -> None:
    modules = [*SETUP["py-modules"], "replay", "cli", "settings", "activities", "api", "storage", "workflows"]
    there = {path.name for path in installed.iterdir() if path.is_dir()} | {
        path.stem for path in installed.glob("*.py")
    }
    assert set(modules) <= there


def test_the_wheel_holds_the_manual_where_it_was_built(installed: Path) -> None:
    for file in ("index.html", "assets/javascripts/bundle.js"):
        assert (installed / "manual/site" / file).is_file()


# The environment of the tests has the repository itself installed; what stands for it goes, so that only the wheel is left.
ALONE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
sys.path[:] = [sys.argv.pop(1), *(path for path in sys.path if "__editable__" not in path)]
from cli import app as cli
assert cli.__file__.startswith(sys.path[0]), cli.__file__
sys.argv[0] = "ais"
"""
AIS = ALONE + "cli.main()"
# The end of a process is only the end of one command here.
HELP = (
    ALONE
    + """
for command in sys.argv[1:]:
    try:
        cli.app([*command.split(), "--help"], prog_name="ais")
    except SystemExit as stop:
        assert not stop.code, (command, stop.code)
"""
)
COMMANDS = [
    "dev", "api", "audit", "migrate", "start", "restart", "release", "status", "kill", "pause", "resume", "cancel-all",
    "deleverage", "desks", "doctor", "keys", "limits", "log", "notify", "replay", "symbols", "watch",
]  # fmt: skip
BARS = "open_time_ms,open,high,low,close,volume\n" + "".join(
    f"{1_750_000_000_000 + number * 60_000},100,101,99,100,5\n" for number in range(50)
)


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_code(AIS, installed, folder, *arguments)


def run_code(code: str, installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-P", "-c", code, str(installed)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([*start, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_no_command_is_forgotten_here() -> None:
    named = {command.name or getattr(command.callback, "__name__", "") for command in cli.app.registered_commands}
    named |= {str(group.name) for group in cli.app.registered_groups}
    assert named == set(COMMANDS)


def test_every_command_says_how_it_is_used(installed: Path, tmp_path: Path) -> None:
    done = run_code(HELP, installed, tmp_path, *COMMANDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ais ") == len(COMMANDS)


def test_a_replay_runs_from_the_wheel_and_asks_its_agents_and_one_that_is_installed_beside_it(
    installed: Path, tmp_path: Path
) -> None:
    """As an image on top of ours does it (docs/agents.md)."""
    shutil.copytree(installed, tmp_path / "installed")
    shutil.copytree(PLUGIN, tmp_path / "plugin", ignore=LEFT_OUT)
    both = install(tmp_path / "plugin", tmp_path / "installed")
    (name, *_) = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]["ais.agents"]
    (tmp_path / "bars.csv").write_text(BARS)
    replay = ["replay", "bars.csv", "--symbol", "BTCUSDT", "--no-chart", "--agents", f"momentum,{name}"]
    done = run(both, tmp_path, *replay, "--json", "out.json")
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "out.json").stat().st_size
    refused = run(installed, tmp_path, *replay)
    assert (refused.returncode, "not installed" in refused.stderr + refused.stdout) == (1, True), refused.stdout


def test_what_compose_starts_in_the_image_is_in_the_wheel(installed: Path) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    starts = [service["entrypoint"] for service in services if service.get("entrypoint", [""])[0] == "python"]
    assert starts
    for _, flag, module in starts:
        assert flag == "-m", "The image holds no source files to be started by their path."
        assert (installed / f"{module}.py").is_file()
