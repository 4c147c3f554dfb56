"""``/metrics`` in Prometheus' format. Labels are bounded: endpoints, statuses and codes of ours; never keys, users or models."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """One per process. `gauge` registers a figure that is read when somebody looks."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tollhouse_http_requests", "Requests answered", ("endpoint", "status", "code"), registry=self._registry
        )
        self._children: dict[tuple[str, int, str], Counter] = {}

    def observe(self, endpoint: str, status: int, code: str) -> None:
        """Counts one answered request (`code` is empty for a success)."""
        key = (endpoint, status, code)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(endpoint, str(status), code)
        child.inc()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(value)

    def render(self) -> bytes:
        return generate_latest(self._registry)
