"""The row views in SQLite against the contract of sinks."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from domain.errors import Unavailable
from infra.adapters.sqlite_views import Catalog, RowView, SqliteSink, SqliteStore, ViewsFile
from infra.adapters.sqlite_views_balances import BalancesView
from infra.adapters.sqlite_views_directory import DirectoryView
from projections.ports import Batch, Sink, Store
from tests.contract.sink_contract import SinkContract
from tests.controlgen import ControlTraffic
from tests.factgen import MemoryLog, Traffic


class RowSinkContract(SinkContract):
    """SQLite in a folder of its own."""

    @abstractmethod
    def view(self) -> RowView: ...

    @abstractmethod
    def damage(self, version: int) -> str:
        """SQL that changes a value."""

    @contextmanager
    def fresh(self) -> Iterator[Store]:
        with TemporaryDirectory() as folder:
            self.file = ViewsFile(Path(folder) / "views.db")
            yield SqliteStore(Catalog(self.file), self.view())
            self.file.close()

    def corrupt(self, store: Store) -> None:
        with self.file.writing() as db:
            assert db.execute(self.damage(store.live())).rowcount == 1

    def accident(self, sink: Sink, batch: Batch) -> None:
        assert isinstance(sink, SqliteSink)
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
