"""The local runner: every projection is fed on its own, failures show and pass, stopping is clean."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from projections.engine import Engine, Policy
from projections.ports import FACTS
from streams.local_runner import Feed, LocalRunner
from tests.factgen import MemoryLog, Traffic
from tests.memory_views import MemoryParking, MemorySink

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def until(condition: Callable[[], bool]) -> None:
    """Waits for `condition`, at most 10 s."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def feed(name: str, sink: MemorySink, log: MemoryLog) -> Feed:
    engine = Engine(name, FACTS, sink, MemoryParking(), Policy.PARK_ORG, lambda: NOW)
    return Feed(engine, log, lambda: NOW)


@pytest.fixture
def traffic() -> Traffic:
    return Traffic(1).run(50)


@pytest.fixture
def sinks() -> tuple[MemorySink, MemorySink]:
    return MemorySink(), MemorySink()


@pytest.fixture
def runner(traffic: Traffic, sinks: tuple[MemorySink, MemorySink]) -> Iterator[LocalRunner]:
    runner = LocalRunner([feed("one", sinks[0], traffic.log), feed("other", sinks[1], traffic.log)])
    yield runner
    runner.stop()


def test_every_projection_gets_the_whole_log(
    runner: LocalRunner, traffic: Traffic, sinks: tuple[MemorySink, MemorySink]
) -> None:
    """What is there at the start and what comes later; then the views are proved to be current."""
    runner.start()
    until(lambda: all(health.as_of == NOW for health in runner.health().values()))
    traffic.run(20)
    total = sum(traffic.log.ends())
    until(lambda: all(len(sink.held) == total for sink in sinks))
    until(lambda: all(health.well and health.lag == 0 for health in runner.health().values()))


def test_a_store_that_is_down_shows_and_recovers(
    runner: LocalRunner, traffic: Traffic, sinks: tuple[MemorySink, MemorySink]
) -> None:
    """Its projection says why it fails and catches up afterwards; the other one never notices."""
    sinks[0].down = True
    runner.start()
    until(lambda: runner.health()["one"].failures > 1)
    assert runner.health()["one"].error == "Unavailable: store is down"
    assert not runner.health()["one"].well
    until(lambda: len(sinks[1].held) == sum(traffic.log.ends()))
    assert runner.health()["other"].well
    sinks[0].down = False
    until(lambda: runner.health()["one"].well and len(sinks[0].held) == sum(traffic.log.ends()))


def test_a_bug_does_not_end_a_projection_in_silence(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody expected is logged with its traceback, shown, and tried again."""
    log = traffic.log
    broken = MemoryLog()
    monkeypatch.setattr(broken, "ends", lambda: 1 // 0)
    sink = MemorySink()
    runner = LocalRunner([feed("one", sink, broken)])
    runner.start()
    until(lambda: runner.health()["one"].failures > 0)
    assert runner.health()["one"].running
    assert "ZeroDivisionError" in str(runner.health()["one"].error)
    assert "Traceback" in caplog.text
    broken.records = log.records
    monkeypatch.undo()
    until(lambda: len(sink.held) == sum(log.ends()))
    runner.stop()


def test_stop_ends_every_thread(runner: LocalRunner) -> None:
    """After it nothing runs, and health says so."""
    runner.start()
    runner.stop()
    assert not any(health.running for health in runner.health().values())
