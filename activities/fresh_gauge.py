"""A gauge that vanishes when its value is no longer renewed: absent rather than stale.

Any other gauge shows its last value for as long as the process lives. A worker whose cycles another worker took over would show
yesterday's open instructions for ever.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class FreshGauge(Collector):
    """Values by their labels; each is shown for `seconds` after it was set."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._seconds, self._clock = seconds, clock
        self._values: dict[tuple[str, ...], tuple[float, float]] = {}
        registry.register(self)

    def set(self, value: float, *labels: str) -> None:
        """Sets a value that was just read."""
        self._values[labels] = (value, self._clock() + self._seconds)

    def describe(self) -> Iterable[Metric]:
        """The metric without values: the registry asks for it before anything was read."""
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        """Called by the thread that serves the metrics."""
        family, now = self._family(), self._clock()
        for labels, (value, until) in list(self._values.items()):
            if now < until:
                family.add_metric(labels, value)
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._name, self._documentation, labels=self._labels)
