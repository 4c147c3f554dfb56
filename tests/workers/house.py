"""Worker processes on the real servers: a database, an analytics database and topics of their own for each test.

async with house(stack) as made:
    worker = await made.join()
    made.write(traffic.log)
    await made.caught_up()
    made.compare()
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen
from uuid import uuid4

import psycopg
from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient
from psycopg.conninfo import make_conninfo

from domain.errors import Unavailable
from infra.adapters.chdb_audit import AuditView
from infra.adapters.chdb_sink import AnalyticsStore
from infra.adapters.chdb_usage import UsageView
from infra.adapters.clickhouse import open_analytics
from infra.adapters.kafka_headers import Headers, link
from infra.adapters.kafka_topics import create_topics
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_directory import DirectoryView
from infra.adapters.row_parking import RowParking
from infra.adapters.row_views import Catalog, RowStore
from infra.stack import Stack
from projections.engine import Engine, Policy
from projections.ports import CONTROL, FACTS, LogReader, Mark, Store
from projections.rebuild import Projection, Rebuilder, Verification
from streams.faust_runner import GROUP
from tests.child import Child
from tests.factgen import MemoryLog
from tests.lab import TOLLHOUSE, _clean_environ
from tests.stack import ROOT
from tests.waiting import until

NAMES = ("directory", "balances", "usage", "audit")
PATIENCE = 120.0
POLICIES = {
    "directory": Policy.PARK_ORG,
    "balances": Policy.PARK_ORG,
    "usage": Policy.PARK_ONE,
    "audit": Policy.PARK_ONE,
}


def now() -> datetime:
    return datetime.now(UTC)


class House:
    """What all workers of a test share. The stores here are the test's own connections to the same views."""

    def __init__(self, stack: Stack, folder: Path, environ: Mapping[str, str]) -> None:
        self.stack, self.folder, self.environ = stack, folder, dict(environ)
        self.workers: list[Child] = []
        self.logs = {FACTS: MemoryLog(FACTS), CONTROL: MemoryLog(CONTROL)}
        self._kafka = environ["TOLLHOUSE_KAFKA"]
        self._producer = Producer({"bootstrap.servers": self._kafka, "linger.ms": 5})
        self._admin = AdminClient({"bootstrap.servers": self._kafka})
        self.views = PostgresViews(environ["TOLLHOUSE_POSTGRES"])
        self.analytics = open_analytics(environ["TOLLHOUSE_CLICKHOUSE"])
        self.parking = RowParking(self.views)
        catalog = Catalog(self.views)
        stores: list[Store] = [
            RowStore(catalog, DirectoryView()),
            RowStore(catalog, BalancesView()),
            AnalyticsStore(self.analytics, catalog, UsageView),
            AnalyticsStore(self.analytics, catalog, AuditView),
        ]
        self.stores = {store.name: store for store in stores}

    # ------------------------------------------------------------ workers

    def worker(self) -> Child:
        """One that is not started."""
        command = [sys.executable, "-m", "tests.workers.feeding", "127.0.0.1:0"]
        made = Child(command, self.folder / f"worker-{len(self.workers)}.log", ROOT, self.environ)
        self.workers.append(made)
        return made

    def product(self) -> Child:
        """`tollhouse worker`, gatekeeper and all. Not started."""
        environ = {**self.environ, "TOLLHOUSE_REDIS": self.stack.urls["redis"], "TOLLHOUSE_SECRET": "s" * 32}
        command = [TOLLHOUSE, "worker", "--listen", "127.0.0.1:0"]
        made = Child(command, self.folder / f"worker-{len(self.workers)}.log", self.folder, environ)
        self.workers.append(made)
        return made

    async def join(self) -> Child:
        """One more, that says it is ready."""
        made = self.worker()
        await made.start()
        return made

    def errors(self) -> list[str]:
        """What the workers logged as errors, or not as JSON. aiokafka calls an error what it tries again."""
        found = []
        for worker in self.workers:
            for line in worker.log.read_text().splitlines() if worker.log.exists() else ():
                told = json.loads(line) if line.startswith("{") else {"level": "error", "logger": "nobody"}
                if told["level"] in ("error", "critical") and not told["logger"].startswith("aiokafka"):
                    found.append(line)
        return found

    # ------------------------------------------------------------ the log

    def write(self, log: MemoryLog) -> None:
        """Everything of `log` that was not written yet."""
        kept = self.logs[log.topic].records
        for partition, records in enumerate(log.records):
            for record in records[len(kept[partition]) :]:
                headers: Headers = link(record.position, record.previous) if log.topic == CONTROL else []
                self._produce(log.topic, record.value, partition, headers)
                kept[partition].append(record)
        assert self._producer.flush(30) == 0

    def _produce(self, topic: str, value: bytes, partition: int, headers: Headers) -> None:
        while True:
            try:
                self._producer.produce(topic, value, partition=partition, headers=headers)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def committed(self) -> dict[tuple[str, int], int]:
        """What the group has committed to Kafka."""
        asked = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)])[GROUP].result()
        return {(tp.topic, tp.partition): tp.offset for tp in asked.topic_partitions}

    # ------------------------------------------------------------ the views

    def marks(self, name: str) -> Mapping[int, Mark]:
        """The watermark in the store."""
        store = self.stores[name]
        return store.open(store.live()).marks()

    def behind(self, name: str) -> int:
        """Records that are not in a view."""
        marks = self.marks(name)
        ends = self.logs[self.stores[name].topic].ends()
        return sum(end - marks.get(partition, Mark()).offset for partition, end in enumerate(ends))

    def complete(self, name: str) -> bool:
        """Nothing of the log is missing in a view. A store that was away is not known to have it all."""
        try:
            return not self.behind(name)
        except Unavailable:
            return False

    async def caught_up(self, *names: str, seconds: float = PATIENCE) -> float:
        """Returns once nothing of the log is missing in the views; how long that took."""
        began = time.monotonic()
        for name in names or self.stores:
            await until(lambda name=name: self.complete(name), f"{name} is caught up", seconds)  # type: ignore[misc]
        return time.monotonic() - began

    def rebuilder(self) -> Rebuilder:
        """Of all views, as another process has it."""
        projections = {}
        for name, store in self.stores.items():
            sink = store.open(store.live())
            engine = Engine(name, store.topic, sink, self.parking, POLICIES[name], now)
            projections[name] = Projection(store, engine, lambda topic=store.topic: self._reader(topic))  # type: ignore[misc]
        return Rebuilder(projections, self.parking, now)

    def _reader(self, topic: str) -> LogReader:
        return self.logs[topic]

    def verified(self) -> dict[str, Verification]:
        """Every view against what the log makes of it in one clean run."""
        rebuilder = self.rebuilder()
        return {name: rebuilder.verify(name) for name in rebuilder.names}

    def engine(self, name: str) -> Engine:
        """As another process has it: to retry what is parked."""
        store = self.stores[name]
        return Engine(name, store.topic, store.open(store.live()), self.parking, POLICIES[name], now)

    def forget_views(self) -> None:
        """The databases are as new; what the group committed stays."""
        with psycopg.connect(self.environ["TOLLHOUSE_POSTGRES"], autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        PostgresViews(self.environ["TOLLHOUSE_POSTGRES"]).close()

    def topics(self) -> set[str]:
        """Those of ours that there are."""
        return {CONTROL, FACTS} & set(self._admin.list_topics(timeout=10).topics)

    def delete_topics(self) -> None:
        _delete_topics(self._admin)

    def close(self) -> None:
        self.views.close()
        self.analytics.close()


@asynccontextmanager
async def house(stack: Stack) -> AsyncIterator[House]:
    """An empty one. Afterwards no worker and no database of it is left."""
    urls = stack.environment
    _empty_topics(urls["TOLLHOUSE_KAFKA"])
    name = f"workers_{uuid4().hex[:8]}"
    postgres = urls["TOLLHOUSE_POSTGRES"]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    analytics = urls["TOLLHOUSE_CLICKHOUSE"].rpartition("/")[0] + f"/{name}"
    environ = {
        **_clean_environ(),
        "TOLLHOUSE_KAFKA": urls["TOLLHOUSE_KAFKA"],
        "TOLLHOUSE_POSTGRES": make_conninfo(postgres, dbname=name),
        "TOLLHOUSE_CLICKHOUSE": analytics,
    }
    with TemporaryDirectory(prefix="tollhouse-workers-") as folder:
        made = House(stack, Path(folder), environ)
        try:
            yield made
        except BaseException:
            for worker in made.workers:
                print(f"--- {worker.log.name}", worker.log.read_text()[-5000:] if worker.log.exists() else "", sep="\n")
            raise
        finally:
            await asyncio.gather(*(worker.kill() for worker in made.workers))
            stack.up()
            made.analytics.command(f"DROP DATABASE {name}")
            made.close()
            with psycopg.connect(postgres, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _empty_topics(servers: str) -> None:
    """The topics as a new installation has them; the group's offsets of another test's topics stay, and must not matter."""
    _delete_topics(AdminClient({"bootstrap.servers": servers}))
    create_topics(servers)


def _delete_topics(admin: AdminClient) -> None:
    there = {CONTROL, FACTS} & set(admin.list_topics(timeout=10).topics)
    if there:
        for done in admin.delete_topics(list(there), operation_timeout=10).values():
            done.result()
        deadline = time.monotonic() + 10
        while {CONTROL, FACTS} & set(admin.list_topics(timeout=10).topics):
            assert time.monotonic() < deadline, "the topics were not deleted"
            time.sleep(0.05)


def asked(url: str, path: str) -> tuple[int, str]:
    """Status and body of a GET, of a worker."""
    from urllib.error import HTTPError

    try:
        with urlopen(url + path, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def figures(url: str, name: str) -> dict[str, float]:
    """A metric of a worker, by projection."""
    found = {}
    for line in asked(url, "/metrics")[1].splitlines():
        if line.startswith(f"{name}{{"):
            label, value = line.removeprefix(name).split("} ")
            found[label.split('"')[1]] = float(value)
    return found
