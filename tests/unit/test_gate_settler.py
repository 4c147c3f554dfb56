"""Settling: facts end holds in the gate, in order and without a gap."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from commands.gate import Settled
from domain.errors import GateUnavailable
from streams import gate_settler as module
from streams.gate_settler import GateSettler
from tests.factgen import MemoryLog
from tests.facts import admitted, body, completed
from tests.waiting import until


class Sink:
    """`GateSink` that takes what continues; a partition without a mark is closed."""

    def __init__(self, marks: dict[int, int]) -> None:
        self.marks, self.asked, self.refusals = marks, 0, 0
        self.taken: list[tuple[int, int, int, list[Settled]]] = []

    async def settle(self, partition: int, run: str, epoch: int, start: int, facts: Sequence[Settled]) -> bool:
        if self.refusals:
            self.refusals -= 1
            return False
        assert run == "run-1"
        assert self.marks[partition] == start
        self.taken.append((partition, epoch, start, list(facts)))
        self.marks[partition] += len(facts)
        return True

    async def watermark(self, partition: int) -> int | None:
        self.asked += 1
        return self.marks.get(partition)


class House:
    def __init__(self, **marks: int) -> None:
        self.sink, self.log = Sink({int(name[1:]): mark for name, mark in marks.items()}), MemoryLog()
        self.settler = GateSettler(self.sink, self.log, "run-1", lambda partition: partition + 10)

    def fact(self, partition: int, cost: int) -> bytes:
        """Appends the completion of one more request."""
        name = f"req_{len(self.log.records[partition])}"
        return self.raw(partition, body(completed(admitted(name), cost)))

    def raw(self, partition: int, stored: bytes) -> bytes:
        self.log.append(partition, stored)
        return stored

    async def run(self, looks: int) -> None:
        """Lets the settler run until it has looked at a watermark so often."""
        task = asyncio.create_task(self.settler.run())
        await until(lambda: self.sink.asked >= looks or task.done(), "the settler's looks")
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


def settled(number: int, cost: int) -> Settled:
    return Settled("RequestCompleted", f"req_{number}", cost, tokens=cost)


async def test_committed_facts_are_settled_as_they_come() -> None:
    """With the partition's epoch, type, attempt, cost and tokens."""
    house = House(p3=0)
    house.settler.committed(3, 0, [house.fact(3, 5), house.fact(3, 6)])
    await house.run(1)
    assert house.sink.taken == [(3, 13, 0, [settled(0, 5), settled(1, 6)])]


@pytest.mark.parametrize("page", [1, 2, 2000])
async def test_a_gap_is_read_from_the_log(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gate missed while it was closed comes first, in order, and nothing comes twice."""
    monkeypatch.setattr(module, "_READ", page)
    house = House(p3=1)
    bodies = [house.fact(3, cost) for cost in range(5)]
    house.settler.committed(3, 4, bodies[4:])
    await house.run(1 + -(-3 // page))
    assert [fact for *_, facts in house.sink.taken for fact in facts] == [settled(n, n) for n in range(1, 5)]


async def test_what_is_settled_already_is_not_settled_again() -> None:
    """The gate was opened with it: only the rest of the batch is new."""
    house = House(p3=2)
    bodies = [house.fact(3, cost) for cost in range(3)]
    house.settler.committed(3, 0, bodies[:2])
    house.settler.committed(3, 0, bodies)
    await house.run(2)
    assert house.sink.taken == [(3, 13, 2, [settled(2, 2)])]


async def test_a_closed_partition_is_skipped_and_holds_up_no_other() -> None:
    """Opening it folds these; the next facts find the gap."""
    house = House(p4=0)
    house.settler.committed(3, 0, [house.fact(3, 5)])
    house.settler.committed(4, 0, [house.fact(4, 6)])
    await house.run(2)
    assert [partition for partition, *_ in house.sink.taken] == [4]
    house.sink.marks[3] = 0
    house.settler.committed(3, 1, [house.fact(3, 7)])
    await house.run(4)
    assert [fact.cost for partition, _, _, facts in house.sink.taken if partition == 3 for fact in facts] == [5, 7]


async def test_what_came_while_a_partition_was_closed_is_settled_once_it_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if no fact comes any more, and the opening did not fold it: a hold that has ended does not stay."""
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.0)
    house = House()
    house.settler.committed(3, 0, [house.fact(3, 5)])
    house.settler.committed(3, 1, [house.fact(3, 6)])
    await house.run(6)
    assert house.sink.taken == []
    house.sink.marks[3] = 1
    await house.run(house.sink.asked + 2)
    assert house.sink.taken == [(3, 13, 1, [settled(1, 6)])]
    asked = house.sink.asked
    house.sink.marks[4] = 0
    house.settler.committed(4, 0, [house.fact(4, 7)])
    await house.run(asked + 1)
    assert house.sink.asked == asked + 1  # nothing is behind: nothing is asked again and again


async def test_what_failed_half_way_is_settled_without_more_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate refused it, or did not answer: it is tried again."""
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.0)
    house = House(p3=0)
    house.sink.refusals = 1
    house.settler.committed(3, 0, [house.fact(3, 5)])
    await house.run(2)
    assert house.sink.taken == [(3, 13, 0, [settled(0, 5)])]
    watermark = house.sink.watermark

    async def broken(partition: int) -> int | None:
        house.sink.watermark = watermark  # type: ignore[method-assign]
        raise GateUnavailable("it does not answer")

    house.sink.watermark = broken  # type: ignore[method-assign]
    house.settler.committed(3, 1, [house.fact(3, 6)])
    with pytest.raises(GateUnavailable):
        await house.settler.run()
    await house.run(house.sink.asked + 1)
    assert house.sink.taken[1:] == [(3, 13, 1, [settled(1, 6)])]


async def test_a_gap_that_the_gate_refuses_is_left_for_the_next_facts() -> None:
    """It is open for another epoch meanwhile: the settler neither insists nor goes past the gap."""
    house = House(p3=0)
    bodies = [house.fact(3, cost) for cost in range(3)]
    house.sink.refusals = 1
    house.settler.committed(3, 1, bodies[1:2])
    house.settler.committed(3, 2, bodies[2:])
    await house.run(3)
    assert [fact.cost for *_, facts in house.sink.taken for fact in facts] == [0, 1, 2]


@pytest.mark.parametrize("stored", [b"", b"no JSON", b'{"type":7,"data":{}}', b'{"data":{"attempt":"req_0"}}'])
async def test_a_fact_that_cannot_be_decoded_settles_nothing(stored: bytes) -> None:
    """It takes its place, so that those behind it are settled; its own hold stays."""
    house = House(p3=0)
    house.settler.committed(3, 0, [house.raw(3, stored), house.fact(3, 6)])
    await house.run(1)
    assert house.sink.taken == [(3, 13, 0, [Settled(""), settled(1, 6)])]


async def test_a_fact_without_an_attempt_settles_nothing() -> None:
    """Refusals and barriers hold nothing."""
    house = House(p3=0)
    denied = msgspec.json.encode({"type": "RequestDenied", "data": {"request": "req_9", "org": "acme"}})
    house.settler.committed(3, 0, [house.raw(3, denied)])
    await house.run(1)
    assert house.sink.taken == [(3, 13, 0, [Settled("RequestDenied")])]
