"""Rebuilding under load, dying in the middle, and the audit chain, on real SQLite and chDB."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest

from domain.errors import Conflict
from domain.facts import RequestAdmitted
from domain.ids import partition_of
from infra.adapters.chdb_audit import AuditChain, AuditView
from infra.adapters.chdb_engine import Analytics, in_process
from infra.adapters.chdb_sink import AnalyticsStore
from infra.adapters.chdb_usage import UsageView
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_directory import DirectoryView, RowDirectory
from infra.adapters.row_holds import RowBalances
from infra.adapters.row_parking import RowParking
from infra.adapters.row_views import Catalog, RowStore
from infra.adapters.sqlite_views import ViewsFile
from projections.audit import shown
from projections.engine import Engine, Policy
from projections.ports import CONTROL, LogReader, Record, Store
from projections.rebuild import Projection, Rebuilder
from streams.local_runner import Feed, LocalRunner
from tests.controlgen import ControlTraffic
from tests.factgen import MemoryLog, Traffic

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def now() -> datetime:
    return NOW


@pytest.fixture(scope="module")
def analytics() -> Iterator[Analytics]:
    with TemporaryDirectory() as folder:
        engine = in_process(Path(folder) / "analytics")
        yield engine
        engine.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[ViewsFile]:
    file = ViewsFile(tmp_path / "views.db")
    yield file
    file.close()


def test_rebuilds_under_load_agree_and_reads_never_fail(file: ViewsFile, analytics: Analytics) -> None:
    """While facts keep coming, each projection is rebuilt twice; hashes are equal and every read is answered."""
    catalog, parking = Catalog(file), RowParking(file)
    traffic, control = Traffic(3), ControlTraffic(3).run(50)
    traffic.run(300)
    stores: list[Store] = [
        RowStore(catalog, BalancesView()),
        RowStore(catalog, DirectoryView()),
        AnalyticsStore(analytics, catalog, UsageView),
        AnalyticsStore(analytics, catalog, AuditView),
    ]
    engines = [Engine(s.name, s.topic, s.open(s.live()), parking, Policy.PARK_ORG, now) for s in stores]
    logs: dict[str, MemoryLog] = {CONTROL: control.log, traffic.log.topic: traffic.log}
    runner = LocalRunner([Feed(engine, logs[engine.topic], now) for engine in engines])
    projections = {
        store.name: Projection(store, engine, _reader(logs[store.topic]))
        for store, engine in zip(stores, engines, strict=True)
    }
    rebuilder = Rebuilder(projections, parking, now)
    balances, directory, done = RowBalances(file), RowDirectory(file), Event()

    def load() -> None:
        while not done.wait(0.01):
            traffic.run(5)
            control.run(1)

    def read() -> int:
        answers = 0
        while not done.is_set():
            assert balances.partition(5).books is not None
            assert directory.get("acme/org/acme") is not None
            for table in ("usage_requests", "audit_entries"):
                name = table.partition("_")[0]
                assert int(analytics.value(f"SELECT count() FROM {table}_{catalog.live(name)} FINAL")) > 0
            answers += 1
        return answers

    for engine in engines:
        engine.feed(logs[engine.topic].all())
    runner.start()
    with ThreadPoolExecutor() as threads:
        loading, reading = threads.submit(load), threads.submit(read)
        try:
            results = [rebuilder.rebuild(name) for name in (*rebuilder.names, *rebuilder.names)]
            checks = [rebuilder.verify(name) for name in rebuilder.names]
        finally:
            done.set()
        loading.result()
        assert reading.result() > 0
    runner.stop()
    assert all(result.equal for result in (*results, *checks)), results
    assert [result.switched for result in results] == [True] * 8


def _reader(log: MemoryLog) -> Callable[[], LogReader]:
    return lambda: log


def test_a_second_rebuild_of_the_same_view_is_refused(file: ViewsFile) -> None:
    """One at a time: the other is told so."""
    store = RowStore(Catalog(file), BalancesView())
    parking = RowParking(file)
    log = Traffic(3).run(10).log
    engine = Engine(store.name, store.topic, store.open(store.live()), parking, Policy.PARK_ORG, now)
    engine.feed(log.all())
    rebuilder = Rebuilder({store.name: Projection(store, engine, lambda: log)}, parking, now)

    def again(_done: int, _total: int) -> None:
        with pytest.raises(Conflict, match="already"):
            rebuilder.verify(store.name)

    assert rebuilder.verify(store.name, again).equal


def test_what_is_parked_is_repaired_and_then_comparable(file: ViewsFile) -> None:
    """A poisoned balance holds its organization back and stops a rebuild; dropped, all is as the log says without it."""
    store, parking = RowStore(Catalog(file), BalancesView()), RowParking(file)
    traffic = Traffic(3, orgs=("acme", "globex")).run(30)
    place = next(p for p, _, fact in traffic.facts if isinstance(fact, RequestAdmitted) and fact.org == "acme")
    poison = traffic.log.append(place, b'{"type":"RequestAdmitted","org":"acme"}')
    traffic.run(30)
    engine = Engine(store.name, store.topic, store.open(store.live()), parking, Policy.PARK_ORG, now)
    engine.feed(traffic.log.all())
    waiting = parking.parked("balances")
    assert waiting[0].record.offset == poison
    assert {one.org for one in waiting} == {"acme"}
    assert len(waiting) > 10
    rebuilder = Rebuilder({store.name: Projection(store, engine, lambda: traffic.log)}, parking, now)
    with pytest.raises(Conflict) as refused:
        rebuilder.verify("balances")
    assert refused.value.code == "projection_poisoned"
    engine.drop(waiting[0].id)
    assert parking.parked("balances") == []
    assert [one.id for one in parking.parked("balances", dropped=True)] == [waiting[0].id]
    assert rebuilder.verify("balances").equal


def test_an_organization_that_was_parked_for_days_is_not_charged_twice(file: ViewsFile) -> None:
    """What ended before is remembered until its parked events are in, though others in its partition moved on by days."""
    store, parking = RowStore(Catalog(file), BalancesView()), RowParking(file)
    partition = partition_of("acme")
    neighbour = next(org for org in map("org-{}".format, range(100)) if partition_of(org) == partition)
    traffic = Traffic(3, orgs=("acme",)).run(1, plain=1.0)
    admitted = next(fact for _, _, fact in traffic.facts if isinstance(fact, RequestAdmitted))
    traffic.log.append(partition, b'{"type":"RequestAdmitted","org":"acme"}')
    traffic.append(partition, admitted)
    traffic.orgs, traffic.step = (neighbour,), timedelta(hours=1)
    traffic.run(60, plain=1.0)
    engine = Engine(store.name, store.topic, store.open(store.live()), parking, Policy.PARK_ORG, now)
    for record in traffic.log.all():
        engine.feed([record])
    before = RowBalances(file).partition(partition).books.buckets["acme", "cap", "1/lifetime"]
    engine.drop(parking.parked("balances")[0].id)
    assert RowBalances(file).partition(partition).books.buckets["acme", "cap", "1/lifetime"] == before
    assert before.held == 0


def test_the_audit_chain_holds_and_shows_where_it_was_broken(file: ViewsFile, analytics: Analytics) -> None:
    """Each entry has its state before and after, without secrets; one changed byte breaks the chain at that entry."""
    catalog = Catalog(file)
    store = AnalyticsStore(analytics, catalog, AuditView)
    control = ControlTraffic(9).run(60)
    engine = Engine(store.name, store.topic, store.open(store.live()), RowParking(file), Policy.PARK_ONE, now)
    for record in control.log.all():
        engine.feed([record])
    chain = AuditChain(analytics, catalog)
    whole = chain.verify()
    assert whole.broken_at is None
    assert whole.entries == engine.marks()[0].events
    states = analytics.value("SELECT groupArray(after)[-1] FROM audit_entries_1 WHERE stream LIKE '%/key/%'")
    assert "hashes" in states
    assert "hashes" not in shown(states)
    analytics.command("ALTER TABLE audit_entries_1 UPDATE body = replaceOne(body, 'key_admin', 'key_nobody')"
                      " WHERE number = 7 SETTINGS mutations_sync = 2")  # fmt: skip
    assert chain.verify().broken_at == 7


_VICTIM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from infra.adapters.chdb_engine import in_process
from infra.adapters.chdb_sink import AnalyticsStore
from infra.adapters.chdb_usage import UsageView
from infra.adapters.row_views import Catalog, RowStore
from infra.adapters.sqlite_views import ViewsFile
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_parking import RowParking
from projections.engine import Engine, Policy
from tests.factgen import Traffic, batches
folder, whole = Path(sys.argv[1]), sys.argv[2] == "whole"
file = ViewsFile(folder / "views.db")
analytics = in_process(folder / "analytics")
catalog = Catalog(file)
stores = [RowStore(catalog, BalancesView()), AnalyticsStore(analytics, catalog, UsageView)]
now = lambda: datetime.now(UTC)
engines = [Engine(s.name, s.topic, s.open(s.live()), RowParking(file), Policy.STOP, now) for s in stores]
log = Traffic(8).run(400).log
for batch in ([log.all()] if whole else batches(log.all(), 7)):
    print("batch", flush=True)
    for engine in engines:
        engine.feed(batch)
print(*(engine.sink.fingerprint().digest for engine in engines), flush=True)
"""


def test_views_survive_being_killed_again_and_again(tmp_path: Path) -> None:
    """Killed with SIGKILL while it writes and started anew until it is through, both stores hold what they hold when
    nothing happens."""
    for batches_seen in (1, 4, 9, 15):
        with _victim(tmp_path / "killed", "pieces") as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(batches_seen)]
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert lines == ["batch\n"] * batches_seen
    assert _digests(tmp_path / "killed", "pieces") == _digests(tmp_path / "straight", "whole")


def _victim(folder: Path, how: str) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", _VICTIM, str(folder), how], stdout=subprocess.PIPE, text=True)


def _digests(folder: Path, how: str) -> str:
    with _victim(folder, how) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output.splitlines()[-1]


def test_a_record_beyond_the_watermark_is_not_compared(file: ViewsFile, analytics: Analytics) -> None:
    """Rows whose watermark is missing make the fingerprint unavailable instead of wrong."""
    store = AnalyticsStore(analytics, Catalog(file), UsageView)
    sink = store.open(store.live())
    engine = Engine(store.name, store.topic, sink, RowParking(file), Policy.STOP, now)
    records: list[Record] = Traffic(3).run(10).log.all()
    engine.feed(records)
    analytics.command("INSERT INTO usage_facts_1 (org, partition, offset) VALUES ('x', 3, 1000000)")
    with pytest.raises(Exception, match="being written"):
        sink.fingerprint()
