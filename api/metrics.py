"""The API's instruments, and one scrape of them.

With several API processes prometheus_client counts in files of a shared folder (PROMETHEUS_MULTIPROC_DIR, set by
`ais api`), so that a counter never jumps back from one scrape to the next. The coordinator's state is no instrument: it
is asked for at each scrape, and absent when nobody answers, so that no scrape ever shows a state that held once.
"""

import os
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from domain.states import CommandKind, State

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"
OTHER_METHOD = "other"
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0)


class Instruments:
    """Every counter of one API process, in a registry of its own."""

    def __init__(self, desk: str) -> None:
        self._desk = desk
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("ais_http_requests_total", "HTTP requests.", labels, registry=self._registry)
        self._request_seconds = Histogram(
            "ais_http_request_seconds", "HTTP request durations.", labels, registry=self._registry, buckets=_SECONDS
        )
        self._commands = Counter(
            "ais_commands_total", "Commands by what became of them.", ("desk", "command", "outcome"),
            registry=self._registry,
        )  # fmt: skip
        self._command_seconds = Histogram(
            "ais_command_seconds", "HTTP request to confirmed outcome.", ("command",), registry=self._registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._turned_away = Counter(
            "ais_http_connections_turned_away_total", "Connections closed before their client wanted it.", ("reason",),
            registry=self._registry,
        )  # fmt: skip

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Counts one request; what is not ours to name (unknown paths, made-up methods) shares one label value."""
        labels = (method if method in METHODS else OTHER_METHOD, route or UNMATCHED, str(status))
        self._requests.labels(*labels).inc()
        self._request_seconds.labels(*labels).observe(seconds)

    def command(self, kind: CommandKind, outcome: str) -> None:
        """Counts one command."""
        self._commands.labels(self._desk, kind.value, outcome).inc()

    def turned_away(self, reason: str) -> None:
        """Counts a connection that was closed before its client wanted it."""
        self._turned_away.labels(reason).inc()

    def confirmed(self, kind: CommandKind, seconds: float) -> None:
        """Notes how long a confirmed command took."""
        self._command_seconds.labels(kind.value).observe(seconds)

    def scrape(self, state: State | None) -> bytes:
        """The exposition text, with the coordinator's state where it is known."""
        registry = CollectorRegistry()
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(_All(self._registry))
        if state is not None:
            registry.register(_State(self._desk, state))
        return generate_latest(registry)


class _All(Collector):
    """What another registry holds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()


class _State(Collector):
    """1 for the state that holds, 0 for the others."""

    def __init__(self, desk: str, state: State) -> None:
        self._desk = desk
        self._state = state

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("ais_coordinator_state", "1 for the state that holds.", labels=("desk", "state"))
        for state in State:
            family.add_metric((self._desk, state.value), float(state is self._state))
        yield family
