"""Faust's consumer, made so that nothing is lost: it starts where the sinks are, and commits no more than they hold.

Out of the box Faust commits what an agent gave up on (an exception, a cancellation, a message skipped in a rebalance all count
as acknowledged). Here the sinks' watermarks are the acknowledgement:
1. After every assignment reading starts at the lowest watermark of the topic's views, whatever Kafka has as committed.
2. What is committed is that watermark: Kafka's offset is a hint for operators, never ahead of a view.
3. `rewind` goes back to a watermark at any time; parcels of before and after are told apart by their `turn`.
Faust's layers cost 120 us and more a message: a message here is a parcel, all that a fetch brought of a partition.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, cast

from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message
from faust.types.transports import TPorTopicSet
from mode import ServiceT
from mode.utils.futures import notify

from projections.ports import Record

FAUST = logging.getLogger("faust")
"""What Faust itself tells of our parts."""

COMMIT_SECONDS = 3.0
"""How long a commit is tried."""

GATHER_SECONDS, GATHERED = 0.02, 500
"""After fewer records than that, so much is waited for more: what a batch costs hardly depends on how many it has."""

_log = logging.getLogger(__name__)


class Parcel(NamedTuple):
    """Consecutive records of one partition. `turn` counts the seeks before them: after a seek, what was under way before it
    still comes, and need not follow on anything."""

    turn: int
    records: Sequence[Record]


class Watermarks(Protocol):
    """What the consumer asks the views of this process."""

    async def start(self, assigned: Iterable[TP]) -> Mapping[TP, int]:
        """Where to read from, as the stores have it now; partitions of which no store answered are left out."""

    def held(self, partition: TP) -> int | None:
        """The offset below which every view of the topic has everything; None if no view is fed from it."""


class SinkConsumer(driver.Consumer):
    """`watermarks` and `record` are set by the transport."""

    logger = FAUST
    watermarks: Watermarks
    record: Callable[[Any], Record]

    @property
    def turn(self) -> int:
        """How often reading was moved to another place."""
        return self._fetching.turn

    @property
    def _fetching(self) -> "_Thread":
        return cast(_Thread, self._thread)

    def _new_consumer_thread(self) -> "_Thread":
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    # ------------------------------------------------------------ where to read

    async def perform_seek(self) -> None:
        """After an assignment. What was committed for it before is forgotten: it may be ahead of a store that was restored."""
        await self.seek_to_committed()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """The sinks' position over Kafka's."""
        assigned = self.assignment()
        positions = await self.watermarks.start(assigned)
        await self.seek_wait(positions)
        self._committed_offset.clear()
        return positions

    async def rewind(self, positions: Mapping[TP, int]) -> None:
        """Reads on from `positions`, of those partitions that are assigned."""
        assigned = self.assignment()
        await self.seek_wait({tp: offset for tp, offset in positions.items() if tp in assigned})
        self._committed_offset.clear()

    # ------------------------------------------------------------ reading

    def answered_at(self, tp: TP) -> float | None:
        """When Kafka last answered about a partition, by the system's clock; None: not yet."""
        at: int | None = self._fetching._ensure_consumer().last_poll_timestamp(driver.ensure_aiokafka_TP(tp))
        return None if at is None else at / 1000

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Faust's own drops what has a lower offset than it saw before: here going back is meant."""
        try:
            while not self.should_stop and not fetcher.should_stop:
                taken = 0
                async for _, message in self.getmany(timeout=1.0):
                    taken += len(cast(Parcel, message.value).records)
                    # in a rebalance nobody takes messages: what is given up here is read again after it
                    await self.wait_first(self.callback(message), self.suspend_flow.wait())
                await asyncio.sleep(GATHER_SECONDS if taken < GATHERED else 0)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """One message per partition and fetch."""
        fetched, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        for tp, (turn, found) in (fetched or {}).items():
            if self.should_stop or not self.flow_active or generation != self.app.consumer_generation_id:
                return
            if active is None or tp in active:
                yield tp, self._parcel(tp, Parcel(turn, [self.record(each) for each in found]))

    def _parcel(self, tp: TP, parcel: Parcel) -> Message:
        first = parcel.records[0]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            first.offset,
            0.0,
            0,
            None,
            None,
            cast(bytes, parcel),  # Faust hands values of the raw codec on as they are
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    def on_buffer_full(self, tp: TP) -> None:
        """A full queue holds the next parcel back. Faust would stop fetching, and look again after a second."""

    def on_buffer_drop(self, tp: TP) -> None:
        """See `on_buffer_full`."""

    async def verify_all_partitions_active(self) -> None:
        """The worker judges progress by its views."""

    # ------------------------------------------------------------ what is committed

    def ack(self, message: Message) -> bool:
        """For Faust's own accounts only: what is committed are watermarks."""
        message.acked = True
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)
        return True

    def _filter_tps_with_pending_acks(self, topics: TPorTopicSet | None = None) -> Iterator[TP]:
        return (tp for tp in self.assignment() if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self.watermarks.held(tp)


class _Thread(driver.AIOKafkaConsumerThread):
    """Where aiokafka runs. Seeks and fetches take turns here, so a fetch knows which seek it came after."""

    logger = FAUST
    turn = 0

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        self.turn += 1
        await super()._seek_wait(consumer, partitions)

    async def on_thread_stop(self) -> None:
        """aiokafka stumbles over a fetch that waits to be tried again, and stops half way: here is the rest."""
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            consumer = self._ensure_consumer()
            with suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(COMMIT_SECONDS):
                    await consumer._coordinator.close()
            await consumer._client.close()

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """A hint that does not get through is given again. Faust would end the worker for it, aiokafka would try for ever."""
        ours = {driver.ensure_aiokafka_TP(tp): at for tp, at in offsets.items() if tp in self.assignment()}
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._ensure_consumer().commit(ours)
        except (KafkaError, TimeoutError) as error:  # a rebalance is under way, or Kafka is away
            _log.info("offsets were not committed: %r", error)
            return False
        return True

    async def _fetch_records(self, *args: Any, **options: Any) -> Any:
        fetched = await super()._fetch_records(*args, **options)
        return {TP(*tp): (self.turn, records) for tp, records in fetched.items()}


class SinkTransport(driver.Transport):
    """Makes `SinkConsumer`s."""

    Consumer = SinkConsumer

    def __init__(self, *args: Any, watermarks: Watermarks, record: Callable[[Any], Record], **options: Any) -> None:
        super().__init__(*args, **options)
        self._watermarks, self._record = watermarks, record

    def create_consumer(self, callback: Callable[[Message], Awaitable[None]], **options: Any) -> SinkConsumer:
        """See `faust.Transport`."""
        consumer = cast(SinkConsumer, super().create_consumer(callback, **options))
        consumer.watermarks, consumer.record = self._watermarks, self._record
        return consumer
