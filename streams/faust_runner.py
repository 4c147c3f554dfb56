"""The projections of one worker process, fed by Faust: one app, one agent per projection, one consumer group for all workers.

Guarantees: a partition is fed by one worker, or for a moment by two, whose sinks compare and set; whatever happens to workers,
group and stores, each view goes on from its own watermark. `stop` returns when nothing is being applied any more, what is
applied is committed and the group is left.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.contrib.asgi import bind_to_running_loop
from faust.streams import Stream
from faust.types import TP, StreamT
from mode import CrashingSupervisor

from domain.errors import Unavailable
from projections.ports import CONTROL, Mark, Record
from streams.faust_consumer import FAUST, Parcel, SinkConsumer, SinkTransport
from streams.faust_lane import Lane

GROUP = "tollhouse-projections"
"""The consumer group of all workers. Stored format: its offsets are in Kafka."""

SESSION_SECONDS, HEARTBEAT_SECONDS = 6.0, 1.0
"""A worker that is dead is replaced after the session; 6 s is the least that brokers allow unless told otherwise."""

REBALANCE_SECONDS = 20.0
"""How long the others wait for a worker to join again."""

COMMIT_EVERY_SECONDS = 1.0
STOP_SECONDS = 25.0
PARCEL_RECORDS = 2000
"""Records of one fetch at most."""

QUEUED_PARCELS = 4
"""Parcels that wait for an agent at most: with `PARCEL_RECORDS`, and what a lane holds, what a slow store costs in memory."""

STORE_SECONDS = 5.0
"""How long a store may take to tell its watermark while partitions are assigned; then it is asked again later."""

_CRASH_SECONDS = 0.2

_log = logging.getLogger(__name__)

Links = Callable[[Sequence[tuple[str, bytes]]], tuple[int, int]]
"""Position and previous position of a control record, from its headers."""


class _App(faust.App):
    """`make` makes the transport."""

    logger = FAUST
    make: "Callable[[list[Any], _App], SinkTransport]"

    def _new_transport(self) -> SinkTransport:
        return self.make(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Faust keeps tables in files; there are none."""


class FaustRunner:
    """`failed` resolves if a part of it ended by a bug: the process must end then. Nothing that was not applied is committed."""

    def __init__(
        self,
        servers: str,
        lanes: Sequence[Lane],
        links: Links,
        failed: "asyncio.Future[None]",
        group: str = GROUP,
    ) -> None:
        self.lanes = lanes
        self._links, self._failed = links, failed
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._app = self._make_app(servers, group)
        for lane in lanes:
            topic = self._app.topic(lane.topic, value_type=bytes, value_serializer="raw", key_serializer="raw")
            agent = self._app.agent(topic, name=lane.name, supervisor_strategy=CrashingSupervisor)
            agent(self._agent(lane))

    def _make_app(self, servers: str, group: str) -> _App:
        app = _App(
            group,
            broker=[f"kafka://{server}" for server in servers.split(",")],
            broker_client_id="tollhouse-worker",
            broker_session_timeout=SESSION_SECONDS,
            broker_heartbeat_interval=HEARTBEAT_SECONDS,
            broker_rebalance_timeout=REBALANCE_SECONDS,
            broker_commit_interval=COMMIT_EVERY_SECONDS,
            broker_max_poll_records=PARCEL_RECORDS,
            stream_buffer_maxsize=QUEUED_PARCELS,
            stream_wait_empty=False,  # a store that is down must not keep the group from rebalancing
            topic_allow_declare=False,  # `tollhouse bootstrap` makes topics
            topic_disable_leader=True,
            web_enabled=False,  # it would tell everything to anybody
            autodiscover=False,
            table_standby_replicas=0,
            store="memory://",
        )
        watermarks = _Watermarks(self.lanes)
        app.make = lambda urls, app: SinkTransport(urls, app, watermarks=watermarks, record=self._record)
        return app

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Returns once it has begun to join the group."""
        bind_to_running_loop(self._app)
        self._app.finalize()
        for lane in self.lanes:
            lane.begin(_Topic(lambda: self.consumer, lane.topic))
        await self._app.start()
        self._tasks = [
            asyncio.create_task(self._watched(work())) for lane in self.lanes for work in (lane.work, lane.tend)
        ]
        self._tasks.append(asyncio.create_task(self._watched(self._watch())))

    async def stop(self) -> None:
        """Drains, commits, leaves the group. A second call does nothing."""
        self._stopping = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self.lanes:
            await lane.close()
        try:
            await asyncio.wait_for(self._app.stop(), STOP_SECONDS)  # the consumer commits as it stops
        except TimeoutError:
            _log.warning("the group did not let go of this worker within %s s: it will find out", STOP_SECONDS)

    async def _watched(self, work: Awaitable[None]) -> None:
        """A bug in any part ends the process."""
        try:
            await work
        except Exception as error:
            _log.exception("the worker ends")
            if not self._failed.done():
                self._failed.set_exception(error)
            raise

    async def _watch(self) -> None:
        """Faust would go on as a shell of itself when a part of it crashed."""
        while not (self._app.crashed or self.consumer.crashed):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(_CRASH_SECONDS)
        raise RuntimeError(f"Faust crashed: {self._app.crash_reason or self.consumer.crash_reason!r}")

    # ------------------------------------------------------------ feeding

    def _agent(self, lane: Lane) -> Callable[[StreamT[Any]], Awaitable[None]]:
        return lambda stream: self._watched(self._feed(lane, cast("Stream[bytes]", stream).noack()))

    async def _feed(self, lane: Lane, stream: StreamT[Any]) -> None:
        """The lane batches by itself. A parcel counts as acknowledged once it is held: what is committed are watermarks."""
        async for event in stream.events():
            if not self._stopping:
                lane.holds(cast(Parcel, event.value))
                await lane.room()
            await stream.ack(event)

    def _record(self, found: Any) -> Record:
        """aiokafka's record as ours."""
        value = found.value or b""
        if found.topic != CONTROL:
            return Record(found.partition, found.offset, value)
        return Record(found.partition, found.offset, value, *self._links(found.headers))

    # ------------------------------------------------------------ how it does

    @property
    def consumer(self) -> SinkConsumer:
        """The one consumer of all lanes."""
        return cast(SinkConsumer, self._app.consumer)

    @property
    def assigned(self) -> frozenset[TP] | None:
        """This worker's partitions; None while it has no place in the group. Empty: the group has more workers than work."""
        if self._app.rebalancing or self._app.consumer_generation_id < 0 or not self.consumer.flow_active:
            return None
        return frozenset(self.consumer.assignment())

    @property
    def silence(self) -> float:
        """Seconds since Kafka last answered about a partition of this worker; 0 if it has none. Kafka is not asked while a
        view has yet to take in what was read."""
        answered = [at for tp in self.assigned or () if (at := self.consumer.answered_at(tp)) is not None]
        return max(0.0, time.time() - max(answered)) if answered else 0.0


class _Watermarks:
    """`streams.faust_consumer.Watermarks` of all lanes."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes

    async def start(self, assigned: Iterable[TP]) -> Mapping[TP, int]:
        """See `Watermarks`."""
        assigned = list(assigned)
        _log.info("partitions: %s", ", ".join(sorted(f"{tp.topic} {tp.partition}" for tp in assigned)) or "none")
        known = await asyncio.gather(*(lane.position(STORE_SECONDS) for lane in self._lanes))
        starts: dict[TP, int] = {}
        for tp in assigned:
            offsets = [
                marks.get(tp.partition, Mark()).offset
                for lane, marks in zip(self._lanes, known, strict=True)
                if marks is not None and lane.topic == tp.topic
            ]
            if offsets:
                starts[tp] = min(offsets)
        return starts

    def held(self, partition: TP) -> int | None:
        """See `Watermarks`."""
        lanes = (lane for lane in self._lanes if lane.topic == partition.topic)
        return min((lane.marks().get(partition.partition, Mark()).offset for lane in lanes), default=None)


class _Topic:
    """`streams.faust_lane.Reading` of one topic."""

    def __init__(self, consumer: Callable[[], SinkConsumer], topic: str) -> None:
        self._consumer, self._topic = consumer, topic

    @property
    def turn(self) -> int:
        """See `Reading`."""
        return self._consumer().turn

    async def rewind(self, offsets: Mapping[int, int]) -> None:
        """See `Reading`."""
        try:
            await self._consumer().rewind({TP(self._topic, partition): at for partition, at in offsets.items()})
        except (KafkaError, TimeoutError) as error:  # a partition went to another worker meanwhile, or Kafka is away
            raise Unavailable(f"Kafka: {error!r}", code="log_unavailable") from error

    def ends(self) -> Mapping[int, int]:
        """See `Reading`."""
        consumer = self._consumer()
        ours = [tp for tp in consumer.assignment() if tp.topic == self._topic]
        return {tp.partition: end for tp in ours if (end := consumer.highwater(tp)) is not None}
