"""Row views in PostgreSQL while they are rebuilt and written by several processes."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from commands.ports import PartitionBalances
from domain.envelope import decode
from domain.errors import Unavailable
from domain.ids import partition_of
from infra.adapters import postgres_views
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_directory import DirectoryView, RowDirectory
from infra.adapters.row_holds import RowBalances
from infra.adapters.row_reads import RowBucketSums
from infra.adapters.row_views import Catalog, Rows, RowStore
from infra.adapters.sqlite_views import ViewsFile
from projections.ports import Outcome
from projections.reads.budgets import Sums
from tests.contract.sink_contract import engine
from tests.controlgen import ControlTraffic
from tests.factgen import Traffic, batches
from tests.postgres import PostgresServer

REBUILDS = 15


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as url:
        yield url


def test_reads_never_fail_and_see_one_version_while_views_are_switched(url: str) -> None:
    """Readers of another process run through fifteen rebuilds: each answer is whole, and the same."""
    traffic = Traffic(seed=5).run(60)
    mine, theirs = PostgresViews(url), PostgresViews(url)
    store, partition = RowStore(Catalog(mine), BalancesView()), partition_of("acme")
    engine(store, store.open(store.live())).feed(traffic.log.all())
    done = Event()

    def read() -> list[tuple[PartitionBalances, Mapping[str, Sums]]]:
        balances, sums, seen = RowBalances(theirs), RowBucketSums(theirs), []
        while not done.is_set():
            seen.append((balances.partition(partition), sums.sums("acme", {"cap": ["1/lifetime"]})))
        return seen

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(4)]
        try:
            for _ in range(REBUILDS):
                version = store.create()
                engine(store, store.open(version)).feed(traffic.log.all())
                store.switch(version)
        finally:
            done.set()
        answers = [answer for reader in readers for answer in reader.result()]
    assert len(answers) > REBUILDS
    assert all(answer == answers[0] for answer in answers)
    mine.close()
    theirs.close()


def test_two_workers_that_feed_the_same_partition_apply_each_batch_once(url: str) -> None:
    """A worker that lost its partition and does not know it yet: the view is as if one of them had done it all."""
    log = Traffic(seed=9, orgs=("acme",)).run(150).log
    views = [PostgresViews(url) for _ in range(3)]
    stores = [RowStore(Catalog(each), BalancesView()) for each in views]
    with ThreadPoolExecutor(3) as threads:
        assert len(set(threads.map(lambda store: store.live(), stores))) == 1
        sinks = [store.open(store.live()) for store in stores]

        def feed(number: int) -> list[Outcome]:
            feeding = engine(stores[number], sinks[number])
            return [feeding.feed(batch) for batch in batches(log.all(), 10)]

        list(threads.map(feed, range(2)))
    calm = stores[2].open(stores[2].create())
    engine(stores[2], calm).feed(log.all())
    assert sinks[0].fingerprint() == calm.fingerprint()
    for each in views:
        each.close()


def test_a_writer_that_stands_still_while_it_sends_does_not_keep_its_place(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped in the middle of a pipeline: to the server it is not idle. Who waits for it gives up once, and ends it."""
    monkeypatch.setattr(postgres_views, "STUCK_SECONDS", 1)
    mine, theirs = PostgresViews(url), PostgresViews(url)

    def stand_still() -> None:
        with mine.applying(["place"]) as session, session.connection.pipeline():
            session.connection.execute("SELECT 1")
            session.connection.pgconn.flush()
            with pytest.raises(Unavailable, match="lock timeout"), theirs.applying(["place"]):
                pass
            with theirs.applying(["place"]) as other:
                assert other.execute("SELECT 2").fetchone() == (2,)

    with pytest.raises(Unavailable, match="connection"):
        stand_still()
    mine.close()
    theirs.close()


def test_the_directory_reads_as_in_sqlite(url: str, tmp_path: Path) -> None:
    """Every entry, every list, every page: the same answers from both stores, in the same order."""
    log = ControlTraffic(seed=7).run(120).log
    stores: list[Rows] = [PostgresViews(url), ViewsFile(tmp_path / "views.db")]
    for rows in stores:
        store = RowStore(Catalog(rows), DirectoryView())
        assert RowDirectory(rows).get("acme/org/acme") is None
        assert RowDirectory(rows).everywhere("key", "", 10, removed=True) == []
        engine(store, store.open(store.live())).feed(log.all())
    postgres, sqlite = (RowDirectory(rows) for rows in stores)
    compared = 0
    for kind in {decode(record.value).stream.split("/")[1] for record in log.all()}:
        for removed in (False, True):
            everywhere = sqlite.everywhere(kind, "", 1_000, removed=removed)
            assert postgres.everywhere(kind, "", 1_000, removed=removed) == everywhere
            compared += len(everywhere)
            for entry in everywhere:
                assert postgres.get(entry.stream) == entry
                page = sqlite.list(entry.org, kind, entry.id, 3, removed=removed)
                assert postgres.list(entry.org, kind, entry.id, 3, removed=removed) == page
    assert compared > 10
    for rows in stores:
        rows.close()
