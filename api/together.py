"""The health of several processes that share a port, told truly by whichever of them is asked.

``/metrics`` has the figures of all of them, with the label ``worker``; ``/readyz`` says whether every one that takes requests at
the port serves them, since nobody can choose which one he gets. One that is not there, or has yet to begin, takes none, and keeps
nobody out. ``/backendz`` has each backend as it is seen at worst, and under ``workers`` as each of them sees it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from api.backends_page import Page, at_worst
from api.metrics import Metrics
from api.site import App, Receive, Scope, Send

STATE, METRICS, BACKENDS = "/state", "/metrics", "/backendz"
"""Paths at the socket by which the processes ask each other."""


class State(msgspec.Struct, frozen=True):
    """Whether a process takes requests at the shared port, and why it serves none now (empty: it does)."""

    taking: bool
    reasons: Sequence[str]


class Sibling(Protocol):
    """A process that shares the port, the asker included."""

    async def state(self) -> State | None:
        """None: it is not there."""

    async def metrics(self) -> bytes | None:
        """In Prometheus' format. None: it is not there, or does not answer."""

    async def backends(self) -> Page | None:
        """None: it is not there, does not answer, or is still starting."""


@dataclass(frozen=True, slots=True)
class Face:
    """What a process tells the others at a socket of its own; `own` is what it tells its callers."""

    state: Callable[[], State]
    figures: Metrics
    own: App

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == STATE:
            await _answer(send, 200, msgspec.json.encode(self.state()), b"application/json")
        elif scope["path"] == BACKENDS:
            await self.own(scope, receive, send)
        else:
            await _answer(send, 200, self.figures.render(), b"text/plain")


@dataclass(frozen=True, slots=True)
class Together:
    """What is behind the shared port: the health of all `siblings`, by name; the rest is `own`. `new_id` makes ids of answers."""

    own: App
    siblings: Mapping[str, Sibling]
    new_id: Callable[[str], str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else None
        if path == "/readyz":
            await self._ready(send)
        elif path == METRICS:
            texts = await asyncio.gather(*(sibling.metrics() for sibling in self.siblings.values()))
            body = merged(dict(zip(self.siblings, texts, strict=True)))
            await _answer(send, 200, body, b"text/plain; version=0.0.4; charset=utf-8", self.new_id("req"))
        elif path == BACKENDS:
            await self._backends(send)
        else:
            await self.own(scope, receive, send)

    async def _ready(self, send: Send) -> None:
        states = await asyncio.gather(*(sibling.state() for sibling in self.siblings.values()))
        named = dict(zip(self.siblings, states, strict=True))
        reasons = [
            f"worker {name}: {why}" for name, state in named.items() if state and state.taking for why in state.reasons
        ]
        workers = {name: _word(state) for name, state in named.items()}
        body = {"status": "not_ready" if reasons else "ready", "reasons": reasons, "workers": workers}
        await _answer(send, 503 if reasons else 200, msgspec.json.encode(body), b"application/json", self.new_id("req"))

    async def _backends(self, send: Send) -> None:
        pages = await asyncio.gather(*(sibling.backends() for sibling in self.siblings.values()))
        workers = {
            name: None if page is None else page.backends for name, page in zip(self.siblings, pages, strict=True)
        }
        body = {"backends": at_worst(page for page in pages if page is not None), "workers": workers}
        await _answer(send, 200, msgspec.json.encode(body), b"application/json", self.new_id("req"))


def _word(state: State | None) -> str:
    if state is None:
        return "away"
    if not state.taking:
        return "starting"
    return "not_ready" if state.reasons else "ready"


def merged(texts: Mapping[str, bytes | None]) -> bytes:
    """The figures of all, each sample with the name of who said it as the label ``worker``; and who answered."""
    up = GaugeMetricFamily("tollhouse_worker_up", "Whether a gateway that shares the port answers", labels=("worker",))
    families: dict[str, Metric] = {up.name: up}
    for name, text in texts.items():
        up.add_metric((name,), float(text is not None))
        for family in text_string_to_metric_families((text or b"").decode()):
            kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                kept.add_sample(sample.name, {**sample.labels, "worker": name}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _answer(send: Send, status: int, body: bytes, kind: bytes, id: str | None = None) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    if id is not None:
        headers.append((b"x-request-id", id.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
