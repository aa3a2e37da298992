"""Alerts and dashboards: each alert fires when it should and not before, says what to do, and names only what exists."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from activities.metrics import WorkerMetrics
from api.metrics import ApiMetrics, _Coordinator, _Keys
from domain.desk.status import status_of
from tests.api.world import make_carried
from tests.house.sources import ROOT

RULES = ROOT / "deploy/prometheus/rules.yml"
CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
PROMTOOL = shutil.which("promtool")
# Of Prometheus itself, and of the Temporal SDK on the worker's second port.
OTHERS = {"up": {"job", "instance"}, "temporal_workflow_task_execution_failed": {"job", "instance"}}

with_promtool = pytest.mark.skipif(
    PROMTOOL is None and not os.environ.get("CI"),
    reason="promtool is missing: install Debian's package prometheus to check the alert rules",
)


class Case(NamedTuple):
    """Series that make an alert fire, and others, as near as possible, that do not. A sample each 15 seconds, from 0 to 10
    minutes; `1x40` is 1 all the time, `_x20 1x20` is absent for the first half."""

    fires: Mapping[str, str]
    quiet: Mapping[str, str]
    times: int = 1


KILLED = 'ais_coordinator_state{desk="a",state="%s"}'
KILLS = 'ais_commands_total{desk="a",command="%s",outcome="%s"}'
ERRORS, CALLS = (
    'ais_aster_errors_total{instance="%s",tool="create_order"}',
    'ais_aster_latency_seconds_count{instance="%s",tool="create_order"}',
)
ANSWERS, READ = 'ais_coordinator_answers{desk="%s",job="api"}', 'ais_observation_age_seconds{desk="%s",job="api"}'
ROWS = 'ais_audit_verified_rows_total{desk="%s",instance="1"}'
FREE, SIZE = 'ais_disk_free_bytes{folder="/data"}', 'ais_disk_size_bytes{folder="/data"}'
REFUSED_KEYS = 'ais_http_keys_refused_total{instance="api",reason="revoked"}'
TURNED = 'ais_http_connections_turned_away_total{instance="1",reason="no_room"}'


def _of_two_workers(metric: str, one: str, other: str) -> dict[str, str]:
    return {f'{metric}{{desk="a",instance="1"}}': one, f'{metric}{{desk="a",instance="2"}}': other}


def _of_desk(metric: str, fires: str, quiet: str) -> Case:
    return Case({f'{metric}{{desk="a"}}': fires}, {f'{metric}{{desk="a"}}': quiet})


CASES = {
    "Killed": Case(
        # The coordinator, or the API, answers no more.
        {KILLED % "killed": "1x20 stale", KILLED % "running": "0x20 stale"},
        # One that was restarted while another API was deployed.
        {
            KILLED % "killed": "0x40",
            KILLED % "paused": "1x40",
            'ais_coordinator_state{desk="b",state="killed",instance="1"}': "1x20 stale",
            'ais_coordinator_state{desk="b",state="killed",instance="2"}': "_x30 0x10",
        },
    ),
    # While the coordinator is too busy for every other scrape.
    "KillNotOver": _of_desk("ais_kill_outstanding", "_x32 2 2 stale stale 2 2 stale stale 2", "0x36 3x2 0"),
    "KillNotConfirmed": Case(
        {KILLS % ("kill", "unconfirmed"): "0x30 1x10"},
        {KILLS % ("kill", "applied"): "0x30 1x10", KILLS % ("pause", "failed"): "0x30 1x10"},
    ),
    "LimitReached": Case(
        {'ais_limit_use{desk="a",limit="drawdown"}': "0.9x39 1"},
        {'ais_limit_use{desk="a",limit="drawdown"}': "0.99x40"},
    ),
    "InstructionsUnconfirmed": Case(
        _of_two_workers("ais_instructions_open", "0x35 2x5", "_x35 1x5"),
        # Another worker has since taken the cycles, and seen that nothing is open any more.
        _of_two_workers("ais_instructions_open", "2x40", "0x40"),
    ),
    "CoordinatorDoesNotAnswer": _of_desk("ais_coordinator_answers", "1x35 0x5", "1x37 0x3"),
    "CyclesStopped": Case(
        _of_two_workers("ais_cycle_age_seconds", "0+15x40", "0+15x40"),
        _of_two_workers("ais_cycle_age_seconds", "0+15x40", "60x40"),
    ),
    "NoWorkerOfDesk": Case(
        {ANSWERS % "a": "1x40", ANSWERS % "b": "1x40", 'ais_cycle_age_seconds{desk="a",job="worker"}': "60x40"},
        {ANSWERS % "a": "1x40", ANSWERS % "b": "0x40", 'ais_cycle_age_seconds{desk="a",job="worker"}': "60x40"},
    ),
    "WorkerDown": Case(
        {'up{job="worker",instance="1"}': "1x35 0x5", 'up{job="api",instance="1"}': "1x40"},
        {'up{job="worker",instance="1"}': "0x40", 'up{job="worker",instance="2"}': "1x40"},
    ),
    "ApiDown": Case({'up{job="api"}': "1x35 0x5"}, {'up{job="api"}': "1x40"}),
    "NoApiOfDesk": Case(
        # One whose worker is up, and one of which nothing is left. The API of another desk is up.
        {
            'up{job="api",instance="c"}': "1x40",
            ANSWERS % "c": "1x40",
            ANSWERS % "a": "1x30 stale",
            'ais_cycle_age_seconds{desk="a",job="worker"}': "5x40",
            ANSWERS % "b": "0x30 stale",
        },
        # No API at all: ApiDown says it.
        {'up{job="api",instance="a"}': "1x30 0x10", ANSWERS % "a": "1x30 stale", ANSWERS % "b": "1x30 stale"},
        times=2,
    ),
    "TemporalDown": Case({'up{job="temporal"}': "1x35 0x5"}, {'up{job="temporal"}': "1x40"}),
    "WorkflowTasksFail": Case(
        {"temporal_workflow_task_execution_failed": "3x30 4x10"}, {"temporal_workflow_task_execution_failed": "3x40"}
    ),
    "RowsUnwritten": _of_desk("ais_unwritten_rows", "0x27 1 1 1 1 stale stale 1 1 1 stale stale 1 1", "0x33 50x7"),
    "VenueNotRead": Case(
        # A desk that was read long ago, and one that was never read.
        {READ % "a": "0+15x40", READ % "b": "60x40", ANSWERS % "b": "1x40", ANSWERS % "c": "1x40"},
        {READ % "a": "60x40", ANSWERS % "a": "1x40", ANSWERS % "b": "0x40"},
        times=2,
    ),
    "BooksDiffer": _of_desk("ais_books_faults", "0x19 1x21", "0x21 1x19"),
    "ForeignOrders": _of_desk("ais_foreign_orders", "0x39 1", "0x40"),
    "AuditBroken": Case(
        # One worker has not looked since, and a desk whose own workers know nothing of it.
        {'ais_audit_broken{desk="a",instance="1"}': "0x38 1x2", 'ais_audit_broken{desk="a",instance="2"}': "0x40"},
        {'ais_audit_broken{desk="a",instance="1"}': "0x40", 'ais_audit_broken{desk="-",instance="1"}': "1x30 0x10"},
    ),
    "AuditNotVerified": Case(
        _of_two_workers("ais_audit_verified_age_seconds", "3601x40", "4000x40"),
        _of_two_workers("ais_audit_verified_age_seconds", "4000x40", "3599x40"),
    ),
    "AuditNeverVerified": Case(
        {ROWS % "a": "0x40", ANSWERS % "a": "1x40"},
        # One that another worker has verified, and one that does not run yet.
        {
            ROWS % "a": "0x40",
            ANSWERS % "a": "1x40",
            'ais_audit_verified_age_seconds{desk="a",instance="2"}': "9x40",
            ROWS % "b": "0x40",
            ANSWERS % "b": "0x40",
        },
    ),
    "LittleDiskSpace": Case({FREE: "9e9x40", SIZE: "1e11x40"}, {FREE: "11e9x40", SIZE: "1e11x40"}),
    "ClockIsWrong": Case(
        {'ais_clock_ahead_seconds{desk="a",clock="exchange"}': "-2x40"},
        {'ais_clock_ahead_seconds{desk="a",clock="exchange"}': "0.9x40"},
    ),
    # Two workers share the cycles, and what is counted in them.
    "DoubtfulReadings": Case(
        _of_two_workers("ais_doubtful_readings_total", "0x25 1x7 2x6", "0x25 1x7 2x6"),
        _of_two_workers("ais_doubtful_readings_total", "0x30 1x10", "0x30 1x10"),
    ),
    "VenueCallsFail": Case(
        # A desk with more calls, which all succeed, hides no desk whose calls fail.
        {ERRORS % "1": "0+3x40", CALLS % "1": "0+10x40", ERRORS % "2": "0x40", CALLS % "2": "0+100x40"},
        {ERRORS % "1": "0+1x40", CALLS % "1": "0+10x40"},
    ),
    "BooksNotRead": _of_desk("ais_books_age_seconds", "3601x40", "3599x40"),
    "AgentQuarantined": Case(
        {'ais_agent_quarantined{agent_id="x"}': "0x39 1"}, {'ais_agent_quarantined{agent_id="x"}': "0x40"}
    ),
    "AnswersTooOld": Case(
        _of_two_workers("ais_answers_too_old_total", "0x20 1x5 2x5 3x7", "0x20 1x5 2x5 3x7"),
        _of_two_workers("ais_answers_too_old_total", "0x20 2x20", "0x20 3x20"),
    ),
    "KeysRefused": Case({REFUSED_KEYS: "0+3x40"}, {REFUSED_KEYS: "0+1x40"}),
    "KeysNotRead": Case(
        # A process that stopped reading them, one that never has, and one that never has beside another of its desk.
        {
            'ais_keys_age_seconds{desk="a"}': "5x10 0+15x30",
            ANSWERS % "a": "1x40",
            ANSWERS % "b": "1x40",
            'ais_keys_age_seconds{desk="c",instance="1"}': "5x40",
            'ais_coordinator_answers{desk="c",instance="1"}': "1x40",
            'ais_coordinator_answers{desk="c",instance="2"}': "1x40",
            # Two processes behind one port take turns to answer, and one of them never has.
            ANSWERS % "d": "1x40",
            'ais_keys_age_seconds{desk="d",job="api"}': "5 5 stale stale " * 10 + "5",
        },
        # One that could not read them for two minutes, and has read them for minutes since.
        {'ais_keys_age_seconds{desk="a"}': "5x12 0+15x10 5x17", ANSWERS % "a": "1x40"},
        times=4,
    ),
    "ConnectionsTurnedAway": Case({TURNED: "0+30x40"}, {TURNED: "0+10x40"}),
}


def _apart() -> list[list[str]]:
    """The alerts in groups in which no two look at the same metric, and so none at what another's case has.

    promtool makes a database for each test, which takes it longer than what is tested.
    """
    groups: list[tuple[list[str], set[str]]] = []
    for alert, case in CASES.items():
        seen = used_by(ALERTS[alert]["expr"]).metrics | {name.split("{")[0] for name in [*case.fires, *case.quiet]}
        for alerts, metrics in groups:
            if not metrics & seen:
                alerts.append(alert)
                metrics.update(seen)
                break
        else:
            groups.append(([alert], seen))
    return [alerts for alerts, _ in groups]


def _tests() -> Iterator[dict[str, Any]]:
    for alerts in _apart():
        for fires in (True, False):
            cases = {alert: CASES[alert] for alert in alerts}
            series = [(case.fires if fires else case.quiet).items() for case in cases.values()]
            yield {
                "name": f"{', '.join(alerts)}: {'all fire' if fires else 'all are quiet'}",
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for each in series for name, values in each],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                        "eval_time": "10m",
                        "exp_samples": [{"labels": "{}", "value": case.times}] if fires else [],
                    }
                    for alert, case in cases.items()
                ],
            }


def _promtool(*arguments: str) -> None:
    done = subprocess.run([PROMTOOL or "promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@with_promtool
def test_prometheus_accepts_rules_and_configuration() -> None:
    _promtool("check", "rules", str(RULES))
    _promtool("check", "config", str(CONFIG))


@with_promtool
def test_each_alert_fires_and_is_quiet_when_it_should_be(tmp_path: Path) -> None:
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [*_tests()]}))
    _promtool("test", "rules", str(file))


def test_every_alert_has_a_case_of_its_own() -> None:
    assert set(CASES) == set(ALERTS), "Add to CASES what makes the alert fire, and what does not."


def test_an_alert_says_what_is_wrong_what_to_do_and_where_to_read_on() -> None:
    for alert, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning"), alert
        assert rule["annotations"].keys() == {"summary", "action", "runbook"}, alert
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor in _anchors(ROOT / page), rule["annotations"]["runbook"]


@cache
def _anchors(page: Path) -> frozenset[str]:
    return frozenset(map(_anchor, re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)))


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_the_table_for_operators_has_every_alert() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    missing = [alert for alert in ALERTS if f"`{alert}`" not in text]
    assert not missing, f"Add these to the alerts of docs/metrics.md: {missing}"


# --- what is named exists ------------------------------------------------------------------------------------------------

_OPERATORS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_GROUPING = r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)"


class Used(NamedTuple):
    """Metrics and labels that an expression names."""

    metrics: set[str]
    labels: set[str]


def used_by(expression: str) -> Used:
    """By the grammar of PromQL: a name that is no function, operator, label or duration is a metric."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    labels = {label.strip() for group in re.findall(_GROUPING, bare) for label in group.split(",") if label.strip()}
    labels |= {label for braces in re.findall(r"\{([^}]*)\}", bare) for label in re.findall(r"(\w+)\s*[=!]", braces)}
    rest = re.sub(_GROUPING + r"|\{[^}]*\}|\[[^]]*\]", " ", bare)
    # A number with an exponent, and a word before a parenthesis, which is a function or an aggregation.
    names = re.findall(r"(?<![\w.$])([a-zA-Z_:][\w:]*)(?!\w*\s*\()", rest)
    return Used({name for name in names if name not in _OPERATORS and f"{name} (" not in rest}, labels)


def registered() -> dict[str, set[str]]:
    """Every series that API and worker can show, and its labels."""
    found = {name: set(labels) for name, labels in OTHERS.items()}
    for registry in (WorkerMetrics("main").registry, ApiMetrics("main")._registry):
        for name, collector in registry._names_to_collectors.items():
            labels: Iterable[str] = getattr(collector, "_labels", ()) or getattr(collector, "_labelnames", ())
            found[name] = {*labels, "job", "instance"} | ({"le"} if name.endswith("_bucket") else set())
    asked = [_Coordinator("main", status_of(make_carried(), "run"), 1.0), _Keys("main", 1.0)]
    for family in [family for collector in asked for family in collector.collect()]:
        found[family.name] = {"job", "instance"} | {label for sample in family.samples for label in sample.labels}
    return found


REGISTERED = registered()


def _panels(dashboard: Any) -> Iterator[Any]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def _expressions() -> dict[str, str]:
    """All that alerts and dashboards ask Prometheus, by where it stands."""
    found = {alert: rule["expr"] for alert, rule in ALERTS.items()}
    for file in DASHBOARDS:
        for panel in _panels(json.loads(file.read_text())):
            for target in panel.get("targets", []):
                found[f"{file.name}: {panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.mark.parametrize(
    ("expression", "metrics", "labels"),
    [
        ('sum by (le, d) (rate(a_b{x="y(z)", t!~"u"}[$__rate_interval])) / on (d) c', {"a_b", "c"}, {"le", "d", "x", "t"}),
        ("a < 1e9 or abs(b) > 0.1 unless c offset 5m", {"a", "b", "c"}, set()),
        ('absent(up{job="w"} == 1)', {"up"}, {"job"}),
    ],
)  # fmt: skip
def test_names_are_found_in_expressions(expression: str, metrics: set[str], labels: set[str]) -> None:
    """So that the next test cannot pass by seeing none."""
    assert used_by(re.sub(r"offset \w+", "offset", expression)) == (metrics, labels)


def test_alerts_and_dashboards_name_only_metrics_and_labels_that_exist() -> None:
    for where, expression in _expressions().items():
        used = used_by(expression)
        assert used.metrics, expression
        assert used.metrics <= REGISTERED.keys(), f"{where}: nothing registers {used.metrics - REGISTERED.keys()}"
        known = set().union(*(REGISTERED[name] for name in used.metrics))
        assert used.labels <= known, f"{where}: no label {used.labels - known}"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_a_dashboard_can_be_provisioned(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    panels = list(_panels(dashboard))
    sources = {panel["datasource"]["uid"] for panel in panels if panel.get("targets")}
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert sources == {source["uid"] for source in provisioned["datasources"]}
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert dashboard["uid"].startswith("ais-")
    for variable in dashboard.get("templating", {}).get("list", []):
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
        assert asked
        assert asked[2] in REGISTERED[asked[1]]
    for panel in panels:
        right, bottom = panel["gridPos"]["x"] + panel["gridPos"]["w"], panel["gridPos"]["y"]
        assert right <= 24
        assert bottom >= 0


def test_there_is_a_dashboard_of_a_desk_and_one_of_all() -> None:
    assert {file.name for file in DASHBOARDS} == {"desk.json", "fleet.json"}
