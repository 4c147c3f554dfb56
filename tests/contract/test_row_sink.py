"""The row views against the contract of sinks, in SQLite and in PostgreSQL."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest

from domain.errors import Unavailable
from infra.adapters import postgres_views
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_directory import DirectoryView
from infra.adapters.row_views import Catalog, Rows, RowSink, RowStore, RowView
from infra.adapters.row_world import WorldView
from infra.adapters.sqlite_views import ViewsFile
from projections.ports import Batch, Sink, Store
from tests.contract.sink_contract import SinkContract, engine
from tests.controlgen import ControlTraffic
from tests.factgen import MemoryLog, Traffic
from tests.postgres import PostgresServer


@contextmanager
def sqlite_rows() -> Iterator[Rows]:
    """SQLite in a folder of its own."""
    with TemporaryDirectory() as folder:
        file = ViewsFile(Path(folder) / "views.db")
        yield file
        file.close()


@contextmanager
def postgres_rows(server: PostgresServer) -> Iterator[Rows]:
    """PostgreSQL in a database of its own."""
    with server.database() as url:
        views = PostgresViews(url)
        yield views
        views.close()


class RowSinkContract(SinkContract):
    """A view in rows."""

    postgres: PostgresServer

    @abstractmethod
    def view(self) -> RowView: ...

    @abstractmethod
    def damage(self, version: int) -> str:
        """SQL that changes a value."""

    def opened(self) -> AbstractContextManager[Rows]:
        return sqlite_rows()

    @contextmanager
    def fresh(self) -> Iterator[Store]:
        with self.opened() as self.rows:
            yield RowStore(Catalog(self.rows), self.view())

    def corrupt(self, store: Store) -> None:
        with self.rows.writing() as db:
            assert db.execute(self.damage(store.live())).rowcount == 1

    def accident(self, sink: Sink, batch: Batch) -> None:
        assert isinstance(sink, RowSink)
        with patch.object(sink, "_advance", side_effect=Unavailable("disk full")):
            sink.apply(batch)


class TestBalances(RowSinkContract):
    """Balances in SQLite."""

    def view(self) -> RowView:
        return BalancesView()

    def log(self) -> MemoryLog:
        return Traffic(seed=7).run(120).log

    def damage(self, version: int) -> str:
        return f"UPDATE balances_buckets_{version} SET consumed = consumed + 1 WHERE org = 'acme' AND budget = 'cap'"


class TestBalancesOverDays(TestBalances):
    """Balances in SQLite, of a log so slow that what ended is forgotten while facts about it still come."""

    def log(self) -> MemoryLog:
        return Traffic(seed=11, step=timedelta(hours=3)).run(120, plain=0.2).log


class TestDirectory(RowSinkContract):
    """The directory in SQLite."""

    def view(self) -> RowView:
        return DirectoryView()

    def log(self) -> MemoryLog:
        return ControlTraffic(seed=7).run(80).log

    def damage(self, version: int) -> str:
        return f"UPDATE directory_entries_{version} SET state = '{{}}' WHERE stream = 'acme/org/acme'"


@pytest.mark.usefixtures("postgres_class")
class InPostgres(RowSinkContract):
    """The same view in PostgreSQL."""

    def opened(self) -> AbstractContextManager[Rows]:
        return postgres_rows(self.postgres)

    def test_it_holds_the_same_rows_as_sqlite(self) -> None:
        """A view has one fingerprint, whatever store it is in."""
        log = self.log()
        with self.fresh() as store, sqlite_rows() as file:
            other = RowStore(Catalog(file), self.view())
            assert self.straight(store, log).fingerprint() == self.straight(other, log).fingerprint()

    def test_rows_that_come_in_bulk_are_the_same(self) -> None:
        """However many rows a batch has, and so on whichever way they come in, the fingerprint is the one of few."""
        log = self.log()
        with self.fresh() as store:
            few = self.straight(store, log).fingerprint()
            with patch.object(postgres_views, "COPIED_ROWS", 1):
                many = store.open(store.create())
                for records in (log.all()[:200], log.all()):
                    engine(store, many).feed(records)
            assert many.fingerprint() == few


class TestPostgresBalances(InPostgres, TestBalances):
    """Balances in PostgreSQL."""


class TestPostgresBalancesOverDays(InPostgres, TestBalancesOverDays):
    """Balances in PostgreSQL, of a slow log."""


class TestPostgresDirectory(InPostgres, TestDirectory):
    """The directory in PostgreSQL."""


class TestWorld(RowSinkContract):
    """The World view in SQLite."""

    def view(self) -> RowView:
        return WorldView()

    def log(self) -> MemoryLog:
        return Traffic(seed=13).run(120, plain=0.8).log

    def damage(self, version: int) -> str:
        table = f"world_answers_{version}"
        return f"UPDATE {table} SET latency_us = latency_us + 1 WHERE attempt = (SELECT min(attempt) FROM {table})"


class TestWorldOverDays(TestWorld):
    """The World view in SQLite, of a log so slow that answers are forgotten."""

    def log(self) -> MemoryLog:
        return Traffic(seed=17, step=timedelta(hours=3)).run(120, plain=0.5).log


class TestPostgresWorld(InPostgres, TestWorldOverDays):
    """The World view in PostgreSQL."""
