"""The health of several processes that share a port, whichever of them is asked."""

import json
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.backends_page import Page, Seen
from api.metrics import Metrics
from api.together import State, Together, merged


class Told:
    """A sibling that is in this state, and sees backends so; None: it is not there."""

    def __init__(self, state: State | None, page: Page | None = None) -> None:
        self._state, self._page = state, page

    async def state(self) -> State | None:
        return self._state

    async def metrics(self) -> bytes | None:
        return None if self._state is None else counted(1)

    async def backends(self) -> Page | None:
        return self._page


def counted(requests: int) -> bytes:
    metrics = Metrics()
    for _ in range(requests):
        metrics.observe("chat", 200, "")
    metrics.gauge("tollhouse_tasks", "Tasks", lambda: 7)
    return metrics.render()


def sample(text: bytes, name: str, **labels: str) -> float:
    """The one sample of that name and those labels. Raises `ValueError` if there is not exactly one."""
    families = text_string_to_metric_families(text.decode())
    (value,) = [s.value for family in families for s in family.samples if s.name == name and s.labels == labels]
    return value


async def told(path: str, *siblings: Told) -> tuple[int, Any]:
    """Status and document of what these tell together at `path`."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def never(*_: Any) -> Any:
        raise AssertionError("it is told by all, and asks for no body")

    named = {str(place): sibling for place, sibling in enumerate(siblings)}
    await Together(never, named, lambda prefix: prefix)({"type": "http", "path": path}, never, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


async def ready(*states: State | None) -> tuple[int, Any]:
    """Status and document of ``/readyz`` where the siblings are in these states."""
    return await told("/readyz", *map(Told, states))


SERVES, STARTS, REFUSES = State(True, []), State(False, ["waiting for Kafka"]), State(True, ["the gate is not open"])


@pytest.mark.parametrize("other", [SERVES, STARTS, None])
async def test_one_that_takes_no_requests_keeps_nobody_out(other: State | None) -> None:
    """The port is ready while everybody who takes requests there serves them."""
    status, doc = await ready(SERVES, other)
    assert (status, doc["status"], doc["reasons"]) == (200, "ready", [])


async def test_one_that_refuses_what_it_takes_makes_the_port_not_ready() -> None:
    """Nobody can choose whom he gets: 503, and each reason says whose it is."""
    status, doc = await ready(SERVES, REFUSES, STARTS, None)
    assert (status, doc["status"], doc["reasons"]) == (503, "not_ready", ["worker 1: the gate is not open"])
    assert doc["workers"] == {"0": "ready", "1": "not_ready", "2": "starting", "3": "away"}


def test_figures_of_all_are_told_apart_by_worker() -> None:
    """Counters and gauges of each, once, with its name; one that does not answer is down and has none."""
    text = merged({"0": counted(2), "1": counted(5), "2": None})
    same = {"endpoint": "chat", "status": "200", "code": ""}
    assert [sample(text, "tollhouse_http_requests_total", worker=worker, **same) for worker in "01"] == [2, 5]
    assert [sample(text, "tollhouse_tasks", worker=worker) for worker in "01"] == [7, 7]
    assert [sample(text, "tollhouse_worker_up", worker=worker) for worker in "012"] == [1, 1, 0]
    assert text.count(b"# TYPE tollhouse_http_requests_total counter") == 1


WELL = Seen("closed", 0.0, 0.0, True, 2, 12.5)


async def test_backends_are_told_as_each_worker_sees_them_and_at_worst() -> None:
    """A backend that one worker has in trouble shows so, whoever is asked; its requests are those of all; one that is not there
    is named, and no backend is lost that only one worker knows."""
    broken = Seen("open", 0.7, 0.0, False, 3, 0.0)
    aside = Seen("warming", 0.0, 4.5, True, 0, 90.0)
    pages = Page({"b": WELL, "a": WELL}), Page({"b": broken}), None, Page({"b": aside, "c": WELL})
    status, doc = await told("/backendz", *(Told(SERVES, page) for page in pages))
    assert (status, set(doc["workers"]), doc["workers"]["2"]) == (200, {"0", "1", "2", "3"}, None)
    assert doc["workers"]["1"] == {"b": json.loads(msgspec.json.encode(broken))}
    assert list(doc["backends"]) == ["a", "b", "c"]
    assert msgspec.convert(doc["backends"], dict[str, Seen]) == {
        "a": WELL,
        "b": Seen("open", 0.7, 4.5, False, 5, 90.0),
        "c": WELL,
    }
