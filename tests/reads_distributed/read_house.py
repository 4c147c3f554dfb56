"""The read API of distributed mode over a known log, asked in process: real Kafka, PostgreSQL and ClickHouse, and the views fed
by engines of this process."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from typing import Any, TypeVar

from api.metrics import Metrics
from api.read.app import create_app
from cli.serving import Starting
from cli.settings import load_settings
from cli.wiring_read_distributed import open_distributed_reads
from domain.errors import Unavailable
from infra.adapters.kafka_reader import KafkaLogReader
from infra.adapters.secrets import InstallationSecrets
from infra.stack import Stack
from projections.engine import Engine
from projections.keyring import Keyring
from projections.ports import CONTROL, FACTS, LogReader, Record
from streams.keyring_follower import KeyringFollower
from streams.local_runner import Feed, LocalRunner
from tests.bookkeeping import NOW, PIECE, SECRET, Books
from tests.factgen import MemoryLog
from tests.read_house import ReadHouse, catch_up
from tests.workers.house import House, house, now

T = TypeVar("T")


@contextmanager
def open_distributed_house(stack: Stack, books: Books) -> Iterator[ReadHouse]:
    """As `tests.read_house.open_house`."""
    with _Loop() as loop, loop.within() as entered:
        home = entered(lambda: house(stack))
        engines = {name: home.engine(name) for name in home.stores}
        servers = home.environ["TOLLHOUSE_KAFKA"]
        runner = LocalRunner([Feed(each, KafkaLogReader(servers, each.topic), now) for each in engines.values()])
        home.analytics.command("SYSTEM STOP MERGES")
        keys = KafkaLogReader(servers, CONTROL)
        keyring = Keyring()
        follower = KeyringFollower(keyring, keys)

        async def read_on() -> None:
            follower.step()

        environ = {name: value for name, value in home.environ.items() if name.startswith("TOLLHOUSE_")}
        settings = load_settings({}, {**environ, "TOLLHOUSE_SECRET": SECRET.decode()}, home.folder)
        secrets = InstallationSecrets(SECRET)
        deps = entered(
            lambda: open_distributed_reads(
                settings, keyring, secrets, _clock, Metrics(), Starting(), asyncio.get_running_loop().create_future()
            )
        )
        deps = _replace(deps, refresh=read_on, prove=read_on)
        runner.start()
        done = threading.Event()
        tending = threading.Thread(target=_tend, args=(home, engines, done))
        tending.start()
        try:
            log = TopicLog(home)
            home.write(books.control.log)
            for start in range(0, len(books.facts), PIECE):
                catch_up(deps)
                log.write(books.facts[start : start + PIECE])
            catch_up(deps)
            yield ReadHouse(create_app(deps), deps, engines, books, log)
        finally:
            done.set()
            tending.join()
            runner.stop()
            keys.close()
            home.analytics.command("SYSTEM START MERGES")


class TopicLog:
    """`HouseLog` on Kafka."""

    def __init__(self, home: House) -> None:
        self._home = home
        self._facts, self._control = MemoryLog(FACTS), MemoryLog(CONTROL)

    def write(self, facts: Sequence[tuple[int, bytes]]) -> None:
        for partition, body in facts:
            self._facts.append(partition, body)
        self._home.write(self._facts)

    async def append(self, partition: int, body: bytes) -> int:
        self.write([(partition, body)])
        return len(self._facts.records[partition]) - 1

    async def forward(self, records: Sequence[Record]) -> None:
        kept = self._home.logs[CONTROL]
        more = MemoryLog(CONTROL)
        more.records[0] = [*kept.records[0], *records]
        self._home.write(more)

    def reader(self, topic: str) -> LogReader:
        return KafkaLogReader(self._home.environ["TOLLHOUSE_KAFKA"], topic)


def _tend(home: House, engines: Mapping[str, Engine], done: threading.Event) -> None:
    """What a worker's lanes do: go on with the version that was switched to elsewhere, and with what was freed elsewhere."""
    versions = {name: store.live() for name, store in home.stores.items()}
    while not done.wait(0.05):
        for name, engine in engines.items():
            store = home.stores[name]
            try:
                if (live := store.live()) != versions[name]:
                    engine.replace(store.open(live))
                    versions[name] = live
                engine.refresh()
            except Unavailable as error:
                if error.code != "version_replaced":  # between the two questions: seen at the next look
                    raise


def _clock() -> datetime:
    return NOW


def _replace(deps: Any, **fields: Any) -> Any:
    from dataclasses import replace

    return replace(deps, **fields)


class _Loop:
    """An event loop in a thread, on which contexts are entered, and left again in the end."""

    def __enter__(self) -> "_Loop":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def within(self) -> Iterator[Callable[[Callable[[], Any]], Any]]:
        stack = AsyncExitStack()

        async def enter(make: Callable[[], Any]) -> Any:
            return await stack.enter_async_context(make())

        try:
            yield lambda make: self._run(enter(make))
        finally:
            self._run(stack.aclose())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
