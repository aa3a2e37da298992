"""docker-compose.yml and what it mounts, as far as they can be checked where no engine runs."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.dev.temporal import DYNAMIC_CONFIG
from settings import WorkerSettings, catalogue
from settings.models import AuditSettings, RedisSettings, TraceSettings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"temporal-schema", "temporal-namespace", "role", "migrate", "indexes", "start"}

# Empty means that there is none: of mirror, traces and key nobody needs any.
OPTIONAL = {"AIS_REDIS_URL", "AIS_TRACES_URL", "AIS_AUDIT_KEY"}


def every_service(check: Callable[[str], None]) -> Callable[[], None]:
    """One test over all services; where it fails, pytest shows the name that the check was called with."""

    def test() -> None:
        for name in SERVICES:
            check(name)

    return test


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


def test_redis_runs_only_where_it_is_asked_for_and_nothing_waits_for_it() -> None:
    assert SERVICES["redis"]["profiles"] == ["redis"]
    assert not [name for name, service in SERVICES.items() if "redis" in service.get("depends_on", {})]


def test_a_desk_waits_for_the_schema_but_not_for_the_indexes_of_reports() -> None:
    assert SERVICES["migrate"]["command"] == ["migrate", "--schema-only", "--grant", "ais_desk"]
    assert SERVICES["indexes"]["command"] == ["migrate"]
    assert not [name for name, service in SERVICES.items() if "indexes" in service.get("depends_on", {})]


@every_service
def test_secrets_come_from_dotenv_and_a_missing_one_stops_with_a_message(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|PWD|KEY|SECRET|_URL$", variable) and variable not in OPTIONAL:
            assert re.search(r"\$\{\w+:\?.*\.env", str(value)), f"{name}: {variable} needs ${{NAME:?message}}"


def test_every_secret_is_in_the_example_and_has_no_value_there() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    lines = (ROOT / ".env.example").read_text().splitlines()

    assert {f"{name}=" for name in needed} <= set(lines)


def test_only_the_migrations_are_run_by_the_owner_of_the_tables() -> None:
    urls = {name: service.get("environment", {}).get("AIS_DATABASE_URL", "") for name, service in SERVICES.items()}

    assert {name for name, url in urls.items() if "//ais:" in url} == {"migrate", "indexes"}
    assert {"worker", "api", "start"} <= {name for name, url in urls.items() if "//ais_desk:" in url}


def test_the_worker_alone_is_handed_the_key_that_signs_checkpoints() -> None:
    """A file that its owner alone may read: as a secret, and never as a value of the environment."""
    assert {name for name, service in SERVICES.items() if "audit_key" in service.get("secrets", [])} == {"worker"}
    assert {name for name, service in SERVICES.items() if "AIS_AUDIT_KEY" in service.get("environment", {})} == {
        "worker"
    }
    assert SERVICES["worker"]["environment"]["AIS_AUDIT_KEY"] == "${AIS_AUDIT_KEY:+/run/secrets/audit_key}"
    # Where there is no key, there has to be a file all the same.
    assert COMPOSE["secrets"] == {"audit_key": {"file": "${AIS_AUDIT_KEY:-/dev/null}"}}


def test_traces_go_out_from_whoever_makes_them() -> None:
    given = {name: service.get("environment", {}).get("AIS_TRACES_URL") for name, service in SERVICES.items()}

    assert {name: value for name, value in given.items() if value} == dict.fromkeys(
        ("worker", "api"), "${TRACES_URL:-}"
    )


def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose hands on what is not in .env."""
    for name in OPTIONAL:
        monkeypatch.setenv(name, "")

    assert not RedisSettings().redis_url
    assert not TraceSettings().traces_url
    assert not AuditSettings().audit_key


@every_service
def test_settings_of_ours_exist(name: str) -> None:
    known = {setting.variable for setting in catalogue()}
    ours = {variable for variable in SERVICES[name].get("environment", {}) if variable.startswith("AIS_")}

    assert ours <= known


# A terminal outside of the containers reaches Temporal at the port that is published.
OF_ITS_OWN = {"AIS_CONSOLE_TEMPORAL_ADDRESS": "127.0.0.1:7233"}


def test_the_consoles_lines_for_a_terminal_name_an_address_that_it_reaches() -> None:
    shown = SERVICES["api"]["environment"]["AIS_CONSOLE_TEMPORAL_ADDRESS"]
    assert shown == f"${{AIS_CONSOLE_TEMPORAL_ADDRESS:-{OF_ITS_OWN['AIS_CONSOLE_TEMPORAL_ADDRESS']}}}"
    assert SERVICES["temporal"]["ports"] == [f"{OF_ITS_OWN['AIS_CONSOLE_TEMPORAL_ADDRESS']}:7233"]


@every_service
def test_a_default_in_compose_is_the_one_of_the_settings(name: str) -> None:
    """A variable without a value is passed on as it is in .env, or not at all."""
    known = {setting.variable: setting.default for setting in catalogue()} | OF_ITS_OWN
    for variable, value in SERVICES[name].get("environment", {}).items():
        given = re.fullmatch(r"\$\{(AIS_\w+):-(.*)\}", str(value))
        assert given is None or (given[2] or "none") == known[variable], f"{name}: {variable}"


# Set by compose itself, for programs outside containers, or for more than one version of the workers.
NOT_HANDED_ON = {
    "AIS_API_PORT", "AIS_DATA_DIR", "AIS_DISK_FOLDERS", "AIS_WORKER_VERSIONING", "AIS_WORKER_DEPLOYMENT", "AIS_WORKER_BUILD_ID",
}  # fmt: skip


def test_every_setting_of_dotenv_reaches_its_reader() -> None:
    """A desk whose .env said AIS_HARD_DRAWDOWN=0.03 began with 0.10: compose reads .env, containers do not."""
    services = {"API": "api", "worker": "worker", "ais": "start"}
    for setting in catalogue():
        reader = services[setting.used_by.split(", ")[0]]
        given = setting.variable in SERVICES[reader]["environment"]
        assert given or setting.variable in NOT_HANDED_ON, f"docker-compose.yml: pass {setting.variable} on to {reader}"


@every_service
def test_what_is_mounted_from_the_repository_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert not source.startswith("./") or (ROOT / source).exists(), source
        assert source.startswith("./") or source in COMPOSE["volumes"]


OURS = [name for name, service in SERVICES.items() if service["image"].startswith("ais:")]
# These begin as root, make their folder their own and become a user without rights.
BEGIN_AS_ROOT = {"postgres": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}, "redis": {"SETGID", "SETUID"}}


@every_service
def test_no_container_has_a_right_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"], f"{name}: add `<<: *hardened`"
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service.get("cap_add", [])) == BEGIN_AS_ROOT.get(name, set())
    wider = {"privileged", "network_mode", "pid", "ipc", "userns_mode", "devices", "user", "volumes_from", "cgroup"}
    assert not wider & set(service), f"{name}: is that needed?"
    assert not [volume for volume in service.get("volumes", []) if "docker.sock" in volume]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_write_into_memory_alone(name: str) -> None:
    """The image's own user has no home, and compiles nothing at run time."""
    assert {"worker", "api", "migrate", "indexes", "start"} == set(OURS)
    assert SERVICES[name]["read_only"] is True
    assert SERVICES[name]["tmpfs"] == ["/tmp"]
    assert "volumes" not in SERVICES[name]


@every_service
def test_what_comes_from_the_repository_is_mounted_to_be_read(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        assert not volume.startswith("./") or volume.endswith(":ro"), f"{name}: write {volume}:ro"


def test_the_worker_is_given_longer_to_stop_than_it_gives_its_activities() -> None:
    worker = SERVICES["worker"]
    grace = float(worker["environment"]["AIS_GRACEFUL_SHUTDOWN_SECONDS"])

    assert float(worker["stop_grace_period"].removesuffix("s")) >= grace + 10
    assert grace == WorkerSettings.model_fields["graceful_shutdown_seconds"].default


def test_temporal_gets_the_dynamic_config_that_the_measurements_rest_on() -> None:
    dynamic = yaml.safe_load((ROOT / "deploy/temporal/dynamicconfig.yaml").read_text())

    given = dict(value.split("=") for value in DYNAMIC_CONFIG)
    assert {name: values[0]["value"] for name, values in dynamic.items()} == {
        name: json.loads(value) for name, value in given.items()
    }


def test_the_image_runs_as_nobody_special_with_locked_requirements() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()

    assert re.search(r"^USER (?!0|root)\w+", dockerfile, re.MULTILINE)
    assert "--require-hashes" in dockerfile
    assert re.search(r"^FROM python:3\.11\.\d+-slim", dockerfile, re.MULTILINE)


def test_the_image_that_runs_is_a_stage_without_sources_and_secrets() -> None:
    *_, last = re.split(r"^(?=FROM )", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    steps = re.findall(r"^([A-Z]+) (.*)", last, re.MULTILINE)

    assert [rest for step, rest in steps if step == "COPY"] == ["requirements.txt .", "--from=build /wheels /wheels"]
    # By number, so that an orchestrator can tell that it is not root; nothing is done as root after it.
    assert [step for step, _ in steps].index("USER") > max(
        n for n, (step, _) in enumerate(steps) if step in {"RUN", "COPY"}
    )
    assert re.search(r"^USER [1-9]\d+$", last, re.MULTILINE)
    assert "PYTHONDONTWRITEBYTECODE=1" in last, "the file system is read-only"
    assert not {"ADD", "ARG", "VOLUME"} & {step for step, _ in steps}
    assert not re.search(r"KEY|PASSWORD|SECRET|TOKEN", last)


def _copied() -> list[str]:
    """What the Dockerfile takes from the repository by name."""
    lines = re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return [name for line in lines for name in line.split() if name != "."]


def test_the_image_builds_the_manual_as_make_does() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    recipe = (ROOT / "Makefile").read_text().partition("\nsite: ")[2].partition("\n\n")[0]
    for step in ("zensical build --clean --strict", "rm build/manual/404.html", "python -m manual.whole build/manual"):
        assert step in dockerfile
        assert step in recipe
    assert "COPY --from=site /src/build/manual manual/site" in dockerfile


def test_what_the_wheel_is_built_from_is_in_the_build_context() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = [pattern.rstrip("*") for pattern in setup["packages"]["find"]["include"]]
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    for source in ["requirements.txt", "requirements-dev.txt", "pyproject.toml", "*.py", *packages, *_copied()]:
        assert f"!{source}" in let_through, f"add !{source} to .dockerignore"


@pytest.mark.parametrize("file", sorted((ROOT / "deploy").rglob("*.y*ml")), ids=lambda path: path.name)
def test_configuration_is_well_formed(file: Path) -> None:
    assert yaml.safe_load(file.read_text())


@pytest.mark.skipif(
    not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="docker compose is not installed",
)
def test_docker_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    env = tmp_path / "env"
    env.write_text("AIS_API_KEY=k\nPOSTGRES_PASSWORD=p\nDESK_PASSWORD=d\nGRAFANA_PASSWORD=g\n")
    command = ["docker", "compose", "--env-file", str(env), "config", "--quiet"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
