"""The health of several processes that share a port, whichever of them is asked."""

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import Metrics
from api.together import State, Together, merged


class Told:
    """A sibling that is in this state; None: it is not there."""

    def __init__(self, state: State | None) -> None:
        self._state = state

    async def state(self) -> State | None:
        return self._state

    async def metrics(self) -> bytes | None:
        return None if self._state is None else counted(1)


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


async def ready(*states: State | None) -> tuple[int, Any]:
    """Status and document of ``/readyz`` where the siblings are in these states."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def never(*_: Any) -> Any:
        raise AssertionError("health is told by all, and asks for no body")

    siblings = {str(place): Told(state) for place, state in enumerate(states)}
    await Together(never, siblings, lambda prefix: prefix)({"type": "http", "path": "/readyz"}, never, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


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
