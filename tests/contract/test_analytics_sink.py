"""The analytics views in chDB against the contract of sinks."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest

from domain.errors import Unavailable
from infra.adapters.chdb_audit import AuditView
from infra.adapters.chdb_engine import Analytics, in_process
from infra.adapters.chdb_sink import AnalyticsSink, AnalyticsStore, AnalyticsView
from infra.adapters.chdb_usage import UsageView
from infra.adapters.row_views import Catalog
from infra.adapters.sqlite_views import ViewsFile
from projections.ports import Batch, Sink, Store
from tests.contract.sink_contract import SinkContract, engine
from tests.controlgen import ControlTraffic
from tests.factgen import MemoryLog, Traffic, batches


@pytest.fixture(scope="module")
def engine_in_process() -> Iterator[Analytics]:
    """One engine for the suite: a process has one."""
    with TemporaryDirectory() as folder:
        analytics = in_process(Path(folder) / "analytics")
        yield analytics
        analytics.close()


def feed_ahead(store: Store, sink: Sink, log: MemoryLog) -> None:
    """All of `log` in small batches, none of them awaited."""
    with sink.running_ahead():
        fed = engine(store, sink)
        for records in batches(log.all(), 37):
            fed.feed(records)


class AnalyticsSinkContract(SinkContract):
    """chDB, with a catalog of its own for every test."""

    view: type[AnalyticsView]

    @pytest.fixture(autouse=True)
    def _analytics(self, engine_in_process: Analytics) -> None:
        self.analytics = engine_in_process

    @abstractmethod
    def damage(self, version: int) -> str:
        """SQL that changes a value."""

    @contextmanager
    def fresh(self) -> Iterator[Store]:
        with TemporaryDirectory() as folder:
            file = ViewsFile(Path(folder) / "views.db")
            yield AnalyticsStore(self.analytics, Catalog(file), self.view)
            file.close()

    def corrupt(self, store: Store) -> None:
        self.analytics.command(f"{self.damage(store.live())} SETTINGS mutations_sync = 2")

    def accident(self, sink: Sink, batch: Batch) -> None:
        insert, left = Analytics.insert, len(self.view().tables(1))

        def failing(analytics: Analytics, table: str, rows: list[Any]) -> None:
            nonlocal left
            if left == 0:
                raise Unavailable("killed")
            left -= 1
            insert(analytics, table, rows)

        assert isinstance(sink, AnalyticsSink)
        with patch.object(Analytics, "insert", failing):
            sink.apply(batch)

    @pytest.mark.parametrize("good", [0, 1, 2, 5])
    def test_what_goes_wrong_ahead_is_raised_and_nothing_is_written_behind_it(self, good: int) -> None:
        """At the latest when it is over; the view is where its watermark says then, and goes on from there."""
        log, insert, left = self.log(), Analytics.insert, good

        def failing(analytics: Analytics, table: str, rows: list[Any]) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Unavailable("killed")
            insert(analytics, table, rows)

        with self.fresh() as store:
            expected = self.straight(store, log).fingerprint()
            other = store.open(store.create())
            with patch.object(Analytics, "insert", failing), pytest.raises(Unavailable, match="killed"):
                feed_ahead(store, other, log)
            assert left == -1
            engine(store, other).feed(log.all())
            assert other.fingerprint() == expected


class TestUsage(AnalyticsSinkContract):
    """Usage in chDB."""

    view = UsageView

    def log(self) -> MemoryLog:
        return Traffic(seed=7).run(120).log

    def damage(self, version: int) -> str:
        return (
            f"ALTER TABLE usage_requests_{version} UPDATE cost = cost + 1 WHERE outcome = 'completed' AND org = 'acme'"
        )

    def test_tables_of_before_there_were_media_go_on(self) -> None:
        """They get the columns when they are opened; what was in them is as if it had been folded today."""
        log = self.log()
        half = len(log.all()) // 2
        with self.fresh() as store:
            version = store.live()
            engine(store, store.open(version)).feed(log.all()[:half])
            for name in ("audio_input", "image_input", "audio_output"):
                self.analytics.command(f"ALTER TABLE usage_requests_{version} DROP COLUMN {name}")
            again = store.open(version)
            engine(store, again).feed(log.all()[half:])
            other = store.open(store.create())
            engine(store, other).feed(log.all())
            assert again.fingerprint() == other.fingerprint()


class TestAudit(AnalyticsSinkContract):
    """Audit in chDB."""

    view = AuditView

    def log(self) -> MemoryLog:
        return ControlTraffic(seed=7).run(80).log

    def damage(self, version: int) -> str:
        return f"ALTER TABLE audit_entries_{version} UPDATE actor = 'nobody' WHERE number = 3"
