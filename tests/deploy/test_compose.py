"""docker-compose.yml and what it mounts, as far as they can be checked where no engine runs."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.dev.temporal import DYNAMIC_CONFIG
from settings import WorkerSettings, catalogue

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"temporal-schema", "temporal-namespace", "migrate", "start"}

every_service = pytest.mark.parametrize("name", SERVICES)


@every_service
def test_ports_are_open_to_this_machine_alone(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert str(port).startswith("127.0.0.1:"), f"{name}: write 127.0.0.1:{port}"


@every_service
def test_images_are_pinned_to_a_version(name: str) -> None:
    tag = SERVICES[name]["image"].rpartition(":")[2]

    assert re.match(r"v?\d+\.\d+", tag), f"{name}: pin the image to a version, not {tag!r}"


@every_service
def test_the_order_is_gated_by_conditions_that_can_come_true(name: str) -> None:
    depends = SERVICES[name].get("depends_on", {})
    assert isinstance(depends, dict), f"{name}: give each dependency a condition"
    for other, how in depends.items():
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other], f"{name} waits for {other}'s health, and it has no healthcheck"
        else:
            assert how["condition"] == "service_completed_successfully"
            assert other in ONE_SHOT, f"{name} waits for {other} to end, and it never does"


@every_service
def test_secrets_come_from_dotenv_and_a_missing_one_stops_with_a_message(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|PWD|KEY|SECRET|_URL$", variable):
            assert re.search(r"\$\{\w+:\?.*\.env", str(value)), f"{name}: {variable} needs ${{NAME:?message}}"


def test_every_secret_is_in_the_example_and_has_no_value_there() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    lines = (ROOT / ".env.example").read_text().splitlines()

    assert {f"{name}=" for name in needed} <= set(lines)


@every_service
def test_settings_of_ours_exist(name: str) -> None:
    known = {setting.variable for setting in catalogue()}
    ours = {variable for variable in SERVICES[name].get("environment", {}) if variable.startswith("AIS_")}

    assert ours <= known


@every_service
def test_a_default_in_compose_is_the_one_of_the_settings(name: str) -> None:
    """Where compose names a default of its own, it does so because a variable cannot be passed on unset."""
    known = {setting.variable: setting.default for setting in catalogue()}
    for variable, value in SERVICES[name].get("environment", {}).items():
        given = re.fullmatch(r"\$\{(AIS_\w+):-(.*)\}", str(value))
        assert given is None or (given[2] or "none") == known[variable], f"{name}: {variable}"


@every_service
def test_what_is_mounted_from_the_repository_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert not source.startswith("./") or (ROOT / source).exists(), source
        assert source.startswith("./") or source in COMPOSE["volumes"]


def test_the_worker_is_given_longer_to_stop_than_it_gives_its_activities() -> None:
    worker = SERVICES["worker"]
    grace = float(worker["environment"]["AIS_GRACEFUL_SHUTDOWN_SECONDS"])

    assert float(worker["stop_grace_period"].removesuffix("s")) >= grace + 10
    assert grace == WorkerSettings.model_fields["graceful_shutdown_seconds"].default


def test_temporal_gets_the_dynamic_config_that_the_measurements_rest_on() -> None:
    dynamic = yaml.safe_load((ROOT / "deploy/temporal/dynamicconfig.yaml").read_text())

    given = dict(value.split("=") for value in DYNAMIC_CONFIG)
    assert {name: str(values[0]["value"]) for name, values in dynamic.items()} == {
        name: value.strip('"') for name, value in given.items()
    }


def test_the_image_runs_as_nobody_special_with_locked_requirements() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()

    assert re.search(r"^USER (?!0|root)\w+", dockerfile, re.MULTILINE)
    assert "--require-hashes" in dockerfile
    assert re.search(r"^FROM python:3\.11\.\d+-slim", dockerfile, re.MULTILINE)


def test_what_the_wheel_is_built_from_is_in_the_build_context() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = [pattern.rstrip("*") for pattern in setup["packages"]["find"]["include"]]
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    for source in ["requirements.txt", "requirements-dev.txt", "pyproject.toml", "*.py", *packages]:
        assert f"!{source}" in let_through, f"add !{source} to .dockerignore"


@pytest.mark.parametrize("file", sorted((ROOT / "deploy").rglob("*.y*ml")), ids=lambda path: path.name)
def test_configuration_is_well_formed(file: Path) -> None:
    assert yaml.safe_load(file.read_text())


def test_dashboard_and_alerts_show_only_metrics_that_are_documented() -> None:
    documented = set(re.findall(r"`(ais_\w+)`", (ROOT / "docs/metrics.md").read_text()))
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/desk.json").read_text())
    shown = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    shown += " ".join(rule["expr"] for group in alerts["groups"] for rule in group["rules"])

    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bais_\w+", shown)}

    assert used <= documented


@pytest.mark.skipif(
    not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="docker compose is not installed",
)
def test_docker_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    env = tmp_path / "env"
    env.write_text("AIS_API_KEY=k\nPOSTGRES_PASSWORD=p\nGRAFANA_PASSWORD=g\n")
    command = ["docker", "compose", "--env-file", str(env), "config", "--quiet"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
