"""A gate is restored from the balances view, whatever is in it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from domain.facts import BudgetHold, RequestUnconfirmed
from domain.ids import PARTITIONS, partition_of
from infra.adapters.memory_gate import MemoryGate
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_holds import RowBalances
from infra.adapters.row_views import Catalog, RowStore
from infra.adapters.sqlite_views import ViewsFile
from projections.engine import Engine, Policy
from tests.factgen import START, Traffic, end
from tests.memory_views import MemoryParking


async def test_a_hold_of_nothing_in_a_bucket_long_past_does_not_keep_the_gate_closed(tmp_path: Path) -> None:
    """A request without a price is unconfirmed for days: its bucket holds nothing and is in no window any more."""
    partition = partition_of("acme")
    traffic = Traffic(1, orgs=("acme",))
    traffic.open(partition)
    until = datetime(2026, 11, 3, tzinfo=UTC)
    day = BudgetHold(
        budget="daily", bucket="1.2026-11-02", until=until, limit=1, limit_version=1, mode="soft", consumed=0, held=0
    )
    free = replace(traffic.admission("acme", partition), hold=0, price=None, budgets=(day,))
    traffic.append(partition, free)
    traffic.append(partition, end(free, RequestUnconfirmed, reason="deadline"))
    traffic.now += timedelta(days=4)
    paid = traffic.admission("acme", partition)
    traffic.append(partition, paid)
    traffic.append(partition, traffic.completion(paid))

    file = ViewsFile(tmp_path / "views.db")
    store = RowStore(Catalog(file), BalancesView())
    sink = store.open(store.live())
    Engine(store.name, store.topic, sink, MemoryParking(), Policy.STOP, lambda: START).feed(traffic.log.all())
    known = RowBalances(file).partition(partition)
    sink.close()
    file.close()

    gate = MemoryGate(PARTITIONS, lambda: traffic.now, "run")
    await gate.begin(partition, "run", 2)
    await gate.finish(partition, "run", 2, known.watermark, known.books)
    assert await gate.watermark(partition) == known.watermark
    assert ("acme", "daily", "1.2026-11-02") in known.books.buckets
