"""Opening the gate, at each start and after each loss, per facts partition. The steps and their order are the protocol:

1. Journal `GateFenced` with the next epoch; wait until the relay has it in the log.
2. Wait until nobody can still admit, or dispatch something unacknowledged, under an older epoch.
3. `Gate.begin`, which refuses an older epoch.
4. Append `GateOpened`: admissions of older epochs that come later in the log are void.
5. Fold the balances view up to that barrier, load it, `Gate.finish`.
6. What the fold leaves open was dispatched by a process that is gone: unconfirmed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from commands.fact_writer import FactWriter
from commands.gate import Gate
from commands.ports import Balances, Clock, FactReader, Journal
from domain import gate_epoch
from domain.envelope import Envelope, decode
from domain.errors import UndecodableEvent
from domain.facts import GateOpened, RequestAdmitted, RequestUnconfirmed, identity_of, only_backend
from domain.fold import Books, State
from domain.gate_epoch import FenceGate, GateFenced
from domain.ids import PLATFORM
from domain.registry import decode_event

_READ = 5000
_log = logging.getLogger("tollhouse.opening")


@dataclass(slots=True)
class Opening:
    """`relayed(position)` returns once the log has the journal up to there. `quiet_seconds` is the wait of step 2: 0 where
    the only gateway is this very process, which admits nothing yet."""

    gate: Gate
    journal: Journal
    relayed: Callable[[int], Awaitable[None]]
    writer: FactWriter
    balances: Balances
    facts: FactReader
    clock: Clock
    new_id: Callable[[str], str]
    quiet_seconds: float

    async def open(self, partitions: range, *, abandoned: bool) -> None:
        """Opens `partitions`. `abandoned`: step 6 too, because no other gateway can be serving what is open."""
        run = await self.gate.run()
        epochs = await self._fence(partitions)
        await asyncio.sleep(self.quiet_seconds)
        for partition in partitions:
            await self.gate.begin(partition, run, epochs[partition])
        barriers = await asyncio.gather(*(self._announce(partition, epochs[partition]) for partition in partitions))
        endings = []
        for partition, barrier in zip(partitions, barriers, strict=True):
            books, admissions = await asyncio.to_thread(self._books, partition, barrier + 1)
            await self.gate.finish(partition, run, epochs[partition], barrier + 1, books)
            if abandoned:
                left = [attempt for attempt, known in books.attempts.items() if known.state is State.OPEN]
                endings += [self._unconfirmed(partition, admissions[attempt]) for attempt in left]
        await asyncio.gather(*endings)

    async def _fence(self, partitions: range) -> dict[int, int]:
        """Step 1: the new epoch of each partition."""

        def decided() -> tuple[dict[int, int], list[Envelope], dict[str, int]]:
            epochs, events, expected = dict[int, int](), list[Envelope](), dict[str, int]()
            for partition in partitions:
                stream = f"{PLATFORM}/{gate_epoch.KIND}/{partition}"
                past = self.journal.load(stream)
                state = None
                for body in past:
                    state = gate_epoch.evolve(state, decode_event(decode(body)))
                (fenced,) = gate_epoch.decide(FenceGate(partition=partition), state)
                epochs[partition], expected[stream] = fenced.epoch, len(past)
                events.append(
                    Envelope(
                        id=self.new_id("evt"),
                        type=GateFenced.__name__,
                        org=PLATFORM,
                        stream=stream,
                        version=len(past) + 1,
                        occurred_at=self.clock(),
                        actor="system",
                        data=fenced,
                    )
                )
            return epochs, events, expected

        epochs, events, expected = await asyncio.to_thread(decided)
        await self.relayed(await self.journal.appended(events, expected, None))
        return epochs

    async def _announce(self, partition: int, epoch: int) -> int:
        """Step 4: the offset of the barrier."""
        fact = GateOpened(partition=partition, epoch=epoch)
        body = self.writer.body(fact, PLATFORM, f"gate-{partition}", "system")
        return await self.writer.append_until_acknowledged(partition, body)

    def _books(self, partition: int, end: int) -> tuple[Books, dict[str, RequestAdmitted]]:
        """Step 5: the books of everything below `end`, and the admissions that may still be open in them."""
        start = self.balances.partition(partition)
        books, offset = start.books, start.watermark
        admissions = {attempt: decode_event(decode(body)) for attempt, body in start.admissions.items()}
        epoch = books.epoch
        for books.epoch, body in start.parked:  # money is held and spent, whoever could not take the fact in
            _fold(books, admissions, body)
        books.epoch = epoch
        while offset < end:
            records = self.facts.read(partition, offset, _READ)
            for record in records:
                if record.offset >= end:
                    break
                _fold(books, admissions, record.value)
            offset = records[-1].offset + 1
        return books, admissions

    async def _unconfirmed(self, partition: int, admission: RequestAdmitted) -> None:
        """Step 6."""
        fact = RequestUnconfirmed(**identity_of(admission), reason="gateway_lost", backend=only_backend(admission))
        body = self.writer.body(fact, admission.org, admission.request, "system")
        await self.writer.append_until_acknowledged(partition, body)


def _fold(books: Books, admissions: dict[str, RequestAdmitted], body: bytes) -> None:
    """One fact. One that cannot be read is passed over, as the views do that park it: nobody knows what it says."""
    try:
        fact = decode_event(decode(body))
    except (UndecodableEvent, msgspec.MsgspecError) as error:
        _log.error("a fact is left out of the gate: %s", error)
        return
    state = books.apply(fact)
    if state is State.OPEN:
        admissions[fact.attempt] = fact
    elif state is not None:  # what the fold ignores ends nothing
        admissions.pop(fact.attempt, None)
