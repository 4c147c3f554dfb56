"""``/metrics`` in Prometheus' format. Labels are bounded: endpoints, statuses and codes of ours; never keys, users or models."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


class Metrics(Collector):
    """One per process. Counting is an addition; everything else happens when somebody looks."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests: Counter[tuple[str, int, str]] = Counter()
        self._registry.register(self)

    def observe(self, endpoint: str, status: int, code: str) -> None:
        """Counts one answered request (`code` is empty for a success)."""
        self._requests[endpoint, status, code] += 1

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Registers a figure that is read when somebody looks."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def gauges(self, name: str, text: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        """Registers a figure for each value of a label, read when somebody looks."""
        self._registry.register(_Gauges(name, text, label, values))

    def collect(self) -> Iterable[CounterMetricFamily]:
        """For prometheus_client."""
        family = CounterMetricFamily(
            "tollhouse_http_requests", "Requests answered", labels=("endpoint", "status", "code")
        )
        for (endpoint, status, code), count in list(self._requests.items()):
            family.add_metric((endpoint, str(status), code), count)
        yield family

    def render(self) -> bytes:
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, name: str, text: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        self._name, self._text, self._label, self._values = name, text, label, values

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._text, labels=(self._label,))
        for value, figure in self._values().items():
            family.add_metric((value,), figure)
        yield family
