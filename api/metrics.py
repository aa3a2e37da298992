"""The API's metrics, and their scrape.

With several API processes, prometheus_client counts in files of a shared folder (PROMETHEUS_MULTIPROC_DIR, set by `ais api`), so
that a counter never jumps back between two scrapes. The coordinator's metrics are not stored: it is asked at each scrape, and
they are absent if nobody answers, so that no scrape shows an old state.
"""

import os
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from domain.desk.states import CommandKind, Mode, State
from domain.desk.status import MAX_SHOWN, Status

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"
OTHER_METHOD = "other"
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0)


class ApiMetrics:
    """Every counter of one API process, in a registry of its own."""

    def __init__(self, desk: str) -> None:
        self._desk = desk
        # The newest reading of the account, and when this process first saw it.
        self._reading: tuple[datetime, float] | None = None
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("ais_http_requests_total", "HTTP requests.", labels, registry=self._registry)
        self._request_seconds = Histogram(
            "ais_http_request_seconds",
            "Duration of an HTTP request.",
            labels,
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._commands = Counter(
            "ais_commands_total", "Commands over HTTP that got this outcome.", ("desk", "command", "outcome"),
            registry=self._registry,
        )  # fmt: skip
        self._command_seconds = Histogram(
            "ais_command_seconds", "Time from the HTTP request to the confirmed outcome.", ("command",), registry=self._registry,
            buckets=_SECONDS,
        )  # fmt: skip
        for outcome in ("failed", "unconfirmed"):
            # An alert watches these, and Prometheus notices the first increase only if it has seen a zero before.
            self._commands.labels(desk, CommandKind.KILL.value, outcome)
        self._turned_away = Counter(
            "ais_http_connections_turned_away_total", "Connections that the API closed early.", ("reason",),
            registry=self._registry,
        )  # fmt: skip

        self._keys_refused = Counter(
            "ais_http_keys_refused_total", "Requests that were refused for their key.", ("reason",),
            registry=self._registry,
        )  # fmt: skip

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Counts one request. Unknown paths share one label value, and so do made-up methods."""
        labels = (method if method in METHODS else OTHER_METHOD, route or UNMATCHED, str(status))
        self._requests.labels(*labels).inc()
        self._request_seconds.labels(*labels).observe(seconds)

    def command(self, kind: CommandKind, outcome: str) -> None:
        """Counts one command."""
        self._commands.labels(self._desk, kind.value, outcome).inc()

    def turned_away(self, reason: str) -> None:
        """Counts a connection that was closed before its client wanted it."""
        self._turned_away.labels(reason).inc()

    def key_refused(self, reason: str) -> None:
        """Counts a request without a key that opens anything here."""
        self._keys_refused.labels(reason).inc()

    def confirmed(self, kind: CommandKind, seconds: float) -> None:
        """Notes how long a confirmed command took."""
        self._command_seconds.labels(kind.value).observe(seconds)

    def scrape(self, status: Status | None, keys_age_seconds: float | None = None) -> bytes:
        """The text for Prometheus, with the coordinator's metrics if it answered."""
        registry = CollectorRegistry()
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(_All(self._registry))
        registry.register(_Coordinator(self._desk, status, self._reading_age(status)))
        registry.register(_Keys(self._desk, keys_age_seconds))
        return generate_latest(registry)

    def _reading_age(self, status: Status | None) -> float | None:
        """Seconds since the account was last read; at least for as long as this process has seen no newer reading.

        By the clocks alone, the venue would count as read for as long as this machine's clock is behind the worker's.
        """
        if status is None or status.observation is None:
            return None
        at, now = status.observation.observed_at, time.monotonic()
        if self._reading is None or self._reading[0] != at:
            self._reading = (at, now)
        return max((datetime.now(UTC) - at).total_seconds(), now - self._reading[1])


class _All(Collector):
    """All metrics of another registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()


class _Coordinator(Collector):
    """The coordinator's metrics, from a status read just now. Without one: only that it did not answer."""

    def __init__(self, desk: str, status: Status | None, reading_age_seconds: float | None) -> None:
        self._desk = desk
        self._status = status
        self._reading_age_seconds = reading_age_seconds

    def collect(self) -> Iterator[Metric]:
        status = self._status
        answers, documentation = status is not None, "1 if the coordinator answered this scrape, else 0."
        yield _gauge(self._desk, "ais_coordinator_answers", documentation, answers)
        if status is None:
            return
        yield self._state(status.state)
        left = _left_of_kill(status)
        yield _gauge(
            self._desk, "ais_kill_outstanding", "What the kill in force still has to do; 0 without a kill.", left
        )
        yield _gauge(
            self._desk,
            "ais_unwritten_rows",
            "Rows of the decision log that wait for the database.",
            status.records_waiting,
        )
        if (age := self._reading_age_seconds) is not None:
            yield _gauge(self._desk, "ais_observation_age_seconds", "Time since the account was last read.", age)

    def _state(self, holds: State) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "ais_coordinator_state", "1 for the current state, 0 for the others.", labels=("desk", "state")
        )
        for state in State:
            family.add_metric((self._desk, state.value), float(state is holds))
        return family


class _Keys(Collector):
    """The age of this process's keys; no metric before their first reading."""

    def __init__(self, desk: str, age_seconds: float | None) -> None:
        self._desk = desk
        self._age_seconds = age_seconds

    def collect(self) -> Iterator[Metric]:
        if self._age_seconds is not None:
            documentation = "Time since this process last read the keys."
            yield _gauge(self._desk, "ais_keys_age_seconds", documentation, self._age_seconds)


def _gauge(desk: str, name: str, documentation: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=("desk",))
    family.add_metric((desk,), float(value))
    return family


def _left_of_kill(status: Status) -> int:
    """How many things are left. In shadow the open orders are somebody else's, and do not count."""
    kill = status.kill
    if kill is None:
        return 0
    if status.mode is Mode.SHADOW:
        return (not kill.latched) + (not kill.row_written)
    left = len(kill.residue)
    # Of many, the status lists only the first few, but counts all instructions.
    return left if left < MAX_SHOWN else max(left, status.open_instructions_total)
