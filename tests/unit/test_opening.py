"""Opening a gate: fenced, announced, folded up to the barrier, and what a dead process left open is ended."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from commands.fact_writer import FactWriter
from commands.gate import AdmitRequest, BudgetClaim, Refused
from commands.opening import Opening
from commands.ports import PartitionBalances
from domain.envelope import decode
from domain.errors import Conflict
from domain.facts import RequestUnconfirmed
from domain.fold import Books
from domain.registry import decode_event
from infra.adapters.memory_gate import MemoryGate
from tests.factgen import MemoryLog
from tests.facts import NOON, ORG, admitted, completed, facts_of, failed, log_of, names_of, opened, unconfirmed, voided
from tests.fakes import FlightLog, InstantLog, LogBalances, MemoryJournal
from tests.waiting import until


@dataclass
class House:
    """A gate to be opened over a log. `steps` are what the opening did, in order; `seen` is how far the view has got."""

    topic: MemoryLog
    seen: int = 0
    quiet: float = 0.0
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate = MemoryGate(2, lambda: NOON, "run_1")
        self.journal = MemoryJournal()
        self.log: Any = InstantLog(self.topic)
        self.make()

    def make(self) -> None:
        self.writer = FactWriter(self.log, lambda: NOON, lambda prefix: f"{prefix}_x")
        balances = LogBalances(self.topic, lambda partition: min(self.seen, len(self.topic.records[partition])))
        self.opening = Opening(
            self,  # type: ignore[arg-type]  # the gate, watched
            self.journal, self.relayed, self.writer, balances, self.topic, lambda: NOON, lambda p: f"{p}_x", self.quiet,
        )  # fmt: skip

    async def relayed(self, position: int) -> None:
        self.steps.append(f"relayed {position}")

    async def run(self) -> str:
        return await self.gate.run()

    async def begin(self, partition: int, run: str, epoch: int) -> None:
        self.steps.append(f"begin {partition} epoch {epoch} at {len(self.topic.records[partition])}")
        await self.gate.begin(partition, run, epoch)

    async def finish(self, partition: int, run: str, epoch: int, watermark: int, books: Books) -> None:
        self.steps.append(f"finish {partition} at {watermark}")
        await self.gate.finish(partition, run, epoch, watermark, books)

    async def open(self, *, abandoned: bool = True, partitions: range = range(1)) -> None:
        await self.opening.open(partitions, abandoned=abandoned)
        await self.writer.drain()

    async def balance(self, epoch: int) -> tuple[int, int]:
        """(consumed, held) of the budget in the gate."""
        claim = BudgetClaim("cap", ("1.lifetime",), None, 0, -1, True)
        request = AdmitRequest(0, "run_1", epoch, ORG, "probe", None, NOON, 10**15, 1, 1, 1, (claim,))
        answer = await self.gate.admit(request)
        assert isinstance(answer, Refused) and answer.seen, answer
        return answer.seen[0].consumed, answer.seen[0].held


LIFE = (
    admitted("done"),
    completed(admitted("done"), 40),
    admitted("open"),
    admitted("lost"),
    unconfirmed(admitted("lost")),
    failed(admitted("void")),
)


async def test_the_steps_come_in_the_order_of_the_protocol() -> None:
    """Fenced and relayed, then begun, then the barrier in the log, then finished just behind it."""
    house = House(log_of(opened(0), *LIFE))
    await house.open(abandoned=False)
    assert house.steps == ["relayed 1", "begin 0 epoch 1 at 7", "finish 0 at 8"]
    assert names_of(house.topic)[7:] == ["GateOpened"]
    (fenced,) = (decode_event(decode(stored)) for stored in house.journal.load("_/gate/0"))
    assert (fenced.partition, fenced.epoch) == (0, 1)


async def test_every_partition_is_fenced_before_any_is_emptied() -> None:
    """And has its barrier in the log before any is opened."""
    house = House(log_of(opened(0), *LIFE))
    await house.open(abandoned=False, partitions=range(2))
    assert house.steps == [
        "relayed 2", "begin 0 epoch 1 at 7", "begin 1 epoch 1 at 0", "finish 0 at 8", "finish 1 at 1",
    ]  # fmt: skip


async def test_each_opening_is_the_next_epoch() -> None:
    """One above the last of the journal, per partition."""
    house = House(log_of())
    await house.open()
    await house.open(partitions=range(2))
    epochs = [[fact.epoch for fact in facts_of(house.topic, partition)] for partition in range(2)]
    assert epochs == [[1, 2], [1]]


@pytest.mark.parametrize("seen", range(8))
async def test_the_gate_opens_with_the_books_at_the_barrier(seen: int) -> None:
    """However old the view is: the log's rest is folded on top."""
    house = House(log_of(opened(0), *LIFE), seen)
    await house.open(abandoned=False)
    assert await house.balance(1) == (140, 100)
    assert await house.gate.watermark(0) == 8
    assert not await house.gate.expired(datetime.max.replace(tzinfo=NOON.tzinfo))


@pytest.mark.parametrize("seen", range(8))
async def test_what_was_open_is_unconfirmed_when_its_process_is_gone(seen: int) -> None:
    """And only that; each fact repeats its admission's identity. While others may still serve it, nothing is ended."""
    house = House(log_of(opened(0), *LIFE), seen)
    await house.open(abandoned=True)
    (ended,) = facts_of(house.topic)[8:]
    admission = admitted("open")
    assert isinstance(ended, RequestUnconfirmed)
    assert (ended.attempt, ended.reason, ended.backend, ended.hold) == ("open", "gateway_lost", "fake", admission.hold)
    other = House(log_of(opened(0), *LIFE), seen)
    await other.open(abandoned=False)
    assert names_of(other.topic)[8:] == []


@pytest.mark.parametrize("seen", range(5))
@pytest.mark.parametrize(
    "ignored", [admitted("open"), voided(admitted("open")), voided(admitted("other")), completed(admitted("nobody"))]
)
async def test_what_the_fold_ignores_ends_nothing(seen: int, ignored: Any) -> None:
    """A repeated admission, or a void that came too late, leaves the attempt open: it has to be found and ended."""
    house = House(log_of(opened(0), admitted("open"), ignored), seen)
    await house.open(abandoned=True)
    assert names_of(house.topic)[4:] == ["Unconfirmed open"]


async def test_admissions_of_an_older_epoch_behind_the_barrier_are_void() -> None:
    """The barrier itself is folded: what reaches the log behind it held nothing."""
    house = House(log_of(admitted("in time", 0)))
    await house.open(abandoned=False)
    await house.open(abandoned=False)
    house.topic.append(0, log_of(admitted("late", 0)).records[0][0].value)
    await house.open(abandoned=False)
    assert await house.balance(3) == (0, 100)


async def test_the_barrier_is_appended_until_it_is_acknowledged() -> None:
    """A lost acknowledgement costs a second barrier; the gate opens behind the last one."""
    house = House(log_of())
    house.log = flight = FlightLog(house.topic)
    house.make()
    opening = asyncio.create_task(house.open())
    await until(lambda: bool(flight.flight), "the barrier")
    assert house.steps[-1] == "begin 0 epoch 1 at 0"
    flight.arrive_unacknowledged()
    await until(lambda: bool(flight.flight), "another one")
    flight.arrive()
    await opening
    assert house.steps[-1] == "finish 0 at 2"
    assert names_of(house.topic) == ["GateOpened", "GateOpened"]


async def test_it_waits_until_nobody_can_admit_under_the_old_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the fence is known, before the gate is emptied."""
    house = House(log_of(), quiet=2.7)
    house.make()

    async def sleep(seconds: float) -> None:
        house.steps.append(f"waited {seconds}")

    monkeypatch.setattr("commands.opening.asyncio.sleep", sleep)
    await house.open()
    assert house.steps == ["relayed 1", "waited 2.7", "begin 0 epoch 1 at 0", "finish 0 at 1"]


async def test_of_two_that_open_the_one_fenced_later_wins() -> None:
    """The other's `begin` or `finish` is refused, and says so."""
    house = House(log_of())
    await house.gate.begin(0, "run_1", 5)
    with pytest.raises(Conflict):
        await house.open()
    assert names_of(house.topic) == []


async def test_facts_that_the_view_could_not_take_in_count_all_the_same() -> None:
    """Parked facts are folded under the epoch of their place in the log; one that nobody can read is passed over."""
    topic = log_of(opened(0), *LIFE)

    class PassedOver(LogBalances):
        """A view that is at the log's end, and has parked everything but the barrier."""

        def partition(self, partition: int) -> PartitionBalances:
            parked = [(0, record.value) for record in self.topic.records[partition][1:]]
            return PartitionBalances(len(parked) + 1, Books(epoch=3), {}, [*parked, (0, b"{}")])

    house = House(topic)
    house.opening.balances = PassedOver(topic)
    topic.append(0, b'{"type":"nonsense"}')
    await house.open(abandoned=False)
    assert await house.balance(1) == (140, 100)
