"""``/backendz``: how this process sees each backend. No secrets, and nothing that ``/metrics`` does not say too."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from api.metrics import Metrics
from commands.backend_states import BackendStates
from domain.circuit import STATES, State


class Seen(msgspec.Struct, frozen=True):
    """A backend, as a process sees it now."""

    circuit: State
    retry_in_seconds: float
    set_aside_seconds: float
    healthy: bool
    in_flight: int
    latency_ms: float


class Page(msgspec.Struct, frozen=True):
    """By the names of the backends."""

    backends: Mapping[str, Seen]


def watched(states: BackendStates, metrics: Metrics) -> None:
    """Registers the figures of every backend: one label, its name."""

    def figures(of: Any) -> Mapping[str, float]:
        return {name: of(state) for name, state in states.known().items()}

    def gauge(name: str, text: str, of: Any) -> None:
        metrics.gauges(name, text, "backend", lambda: figures(of))

    gauge(
        "tollhouse_backend_circuit",
        "Circuit of a backend: 0 closed, 1 warming, 2 half open, 3 open",
        lambda state: STATES.index(state.circuit.state(states.now())),
    )
    gauge("tollhouse_backend_healthy", "Whether the last checks of a backend were answered", lambda s: s.healthy)
    gauge("tollhouse_backend_in_flight", "Requests at a backend", lambda state: state.in_flight)
    gauge(
        "tollhouse_backend_latency_seconds",
        "About how long answers of a backend take to begin, by its last ones",
        lambda state: state.latency(states.now()),
    )


class BackendsPage:
    """The ASGI application."""

    def __init__(self, states: BackendStates) -> None:
        self._states = states

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        body = msgspec.json.encode(Page(self._seen()))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _seen(self) -> Mapping[str, Seen]:
        now = self._states.now()
        return {
            name: Seen(
                circuit=state.circuit.state(now),
                retry_in_seconds=round(state.circuit.retry_in(now), 3),
                set_aside_seconds=round(max(0.0, state.aside_until - now), 3),
                healthy=state.healthy,
                in_flight=state.in_flight,
                latency_ms=round(state.latency(now) * 1000, 3),
            )
            for name, state in sorted(self._states.known().items())
        }


def at_worst(pages: Iterable[Page]) -> Mapping[str, Seen]:
    """Each backend as the process sees it that sees it worst, figure by figure; its requests are those of all of them."""
    views: dict[str, list[Seen]] = {}
    for page in pages:
        for name, seen in page.backends.items():
            views.setdefault(name, []).append(seen)
    return {name: _at_worst(views[name]) for name in sorted(views)}


def _at_worst(views: Sequence[Seen]) -> Seen:
    return Seen(
        circuit=max((seen.circuit for seen in views), key=STATES.index),
        retry_in_seconds=max(seen.retry_in_seconds for seen in views),
        set_aside_seconds=max(seen.set_aside_seconds for seen in views),
        healthy=all(seen.healthy for seen in views),
        in_flight=sum(seen.in_flight for seen in views),
        latency_ms=max(seen.latency_ms for seen in views),
    )
