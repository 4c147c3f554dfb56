"""Settling from a log that is elsewhere, and seeing whether the gate is still the one that it was."""

import asyncio
from collections.abc import Sequence

import pytest

from commands.gate import Settled
from domain.errors import GateUnavailable
from domain.fold import Books
from infra.adapters.memory_gate import MemoryGate
from streams import gate_follower as module
from streams.gate_follower import GateFollower
from streams.gate_watch import GateWatch
from tests.factgen import MemoryLog
from tests.facts import NOON, admitted, body, completed
from tests.waiting import until

RUN = "run-1"


class Sink:
    """`GateSink` that takes what continues for its run; a partition without a mark is closed."""

    def __init__(self, **marks: int) -> None:
        self.marks = {int(name[1:]): mark for name, mark in marks.items()}
        self.taken: list[tuple[int, int, int]] = []

    async def settle(self, partition: int, run: str, epoch: int, start: int, facts: Sequence[Settled]) -> bool:
        if run != RUN or self.marks.get(partition) != start:
            return False
        self.taken.append((partition, epoch, start))
        self.marks[partition] += len(facts)
        return True

    async def watermark(self, partition: int) -> int | None:
        return self.marks.get(partition)


class House:
    def __init__(self, **marks: int) -> None:
        self.sink, self.log, self.eager = Sink(**marks), MemoryLog(), True
        self.run: str | None = RUN
        self.follower = GateFollower(self.sink, self.log, lambda: self.run, lambda p: p + 10, lambda: self.eager)

    def facts(self, partition: int, count: int) -> None:
        for number in range(count):
            self.log.append(partition, body(completed(admitted(f"req_{number}"))))

    async def settles(self, partition: int, mark: int) -> None:
        """Runs until the watermark is there."""
        running = asyncio.create_task(self.follower.run())
        await until(lambda: self.sink.marks[partition] == mark or running.done(), "the watermark")
        running.cancel()
        await asyncio.wait([running])
        await self.follower.close()
        assert running.cancelled()


async def test_facts_are_settled_from_the_gates_own_watermark(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in pieces, with the epoch of the partition; what lies below the watermark is not settled again."""
    monkeypatch.setattr(module, "READ", 2)
    house = House(p3=1)
    house.facts(3, 6)
    await house.settles(3, 6)
    assert house.sink.taken == [(3, 13, 1), (3, 13, 3), (3, 13, 5)]


async def test_a_closed_partition_holds_up_no_other() -> None:
    """Opening it folds its facts."""
    house = House(p4=0)
    house.facts(3, 2)
    house.facts(4, 2)
    await house.settles(4, 2)
    assert {partition for partition, *_ in house.sink.taken} == {4}


async def test_one_that_is_not_eager_steps_in_where_nobody_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watermark that moves by itself is left alone; one that stands still with facts before it is moved."""
    monkeypatch.setattr(module, "STILL_SECONDS", 0.05)
    house = House(p3=0, p4=0)
    house.eager = False
    house.facts(3, 50)
    house.facts(4, 2)

    async def another() -> None:
        while house.sink.marks[3] < 50:
            house.sink.marks[3] += 1
            await asyncio.sleep(0.01)

    other = asyncio.create_task(another())
    await house.settles(4, 2)
    assert {partition for partition, *_ in house.sink.taken} == {4}
    await other


async def test_another_gate_is_not_settled() -> None:
    """A watermark of a gate that was not opened for the run in use is nobody's."""
    house = House(p3=0, p4=0)
    house.facts(3, 2)
    house.run = "run-2"
    running = asyncio.create_task(house.follower.run())
    await asyncio.sleep(0.1)
    assert house.sink.marks[3] == 0
    house.run = RUN
    await until(lambda: house.sink.marks[3] == 2, "the watermark")
    running.cancel()
    await asyncio.wait([running])
    await house.follower.close()


class Epochs:
    def __init__(self, epoch: int) -> None:
        self.now = epoch

    def epoch(self, partition: int) -> int:
        return self.now


async def opened(gate: MemoryGate, epoch: int) -> None:
    for partition in range(2):
        await gate.begin(partition, gate.identity, epoch)
        await gate.finish(partition, gate.identity, epoch, 0, Books())


async def test_a_gate_is_open_only_for_its_run_and_epoch() -> None:
    """Closed before it is opened, open for the epoch it was opened for, closed for a later one: it came back with an old memory.
    Looking changes nothing."""
    gate, epochs = MemoryGate(2, lambda: NOON, RUN), Epochs(1)
    watch = GateWatch(gate, epochs, 2)
    await watch.look()
    assert (watch.identity, watch.answers, watch.open) == (RUN, True, False)
    await opened(gate, 1)
    await watch.look()
    assert watch.open
    assert [await gate.watermark(partition) for partition in range(2)] == [0, 0]
    epochs.now = 2
    await watch.look()
    assert not watch.open


async def test_a_gate_that_is_open_in_part_is_not_open() -> None:
    """Whoever opened it died half way."""
    gate, epochs = MemoryGate(2, lambda: NOON, RUN), Epochs(1)
    watch = GateWatch(gate, epochs, 2)
    await gate.begin(0, RUN, 1)
    await gate.finish(0, RUN, 1, 0, Books())
    await watch.look()
    assert not watch.open


async def test_a_gate_that_does_not_answer_is_not_called_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows: nothing is opened anew because of that."""
    gate, epochs = MemoryGate(2, lambda: NOON, RUN), Epochs(1)
    watch = GateWatch(gate, epochs, 2)
    await opened(gate, 1)
    await watch.look()

    async def silent() -> str:
        raise GateUnavailable("no answer")

    monkeypatch.setattr(gate, "run", silent)
    with pytest.raises(GateUnavailable):
        await watch.look()
    assert (watch.answers, watch.open, watch.identity) == (False, False, RUN)
