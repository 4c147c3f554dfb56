"""The `Balances` port: what a gate gets is what the fold of the log says, at the watermark it is given with."""

import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pkgutil import resolve_name
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.ports import Balances, Overrun, PartitionBalances
from domain.facts import RequestAdmitted, RequestCompleted, RequestUnconfirmed
from domain.fold import LIVE, Attempt, Books, State
from domain.ids import partition_of
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_holds import RowBalances
from infra.adapters.row_views import Catalog, Rows, RowStore
from projections.engine import Engine, Policy
from tests.contract.sink_contract import NOW
from tests.factgen import Traffic, batches
from tests.memory_views import MemoryParking
from tests.postgres import PostgresServer


def straight(traffic: Traffic, partition: int, end: int) -> Books:
    """The fold of a partition below `end`, run over everything in one go."""
    books = Books()
    for place, offset, fact in traffic.facts:
        if place == partition and offset < end:
            books.apply(fact)
    return books


def essence(books: Books) -> tuple[object, ...]:
    """What two books must agree on. A void attempt's accounted time is the view's own when its fact has none."""
    attempts = {
        id: (known.state, known.hold, known.buckets, None if known.state is State.VOID else known.accounted_at)
        for id, known in books.attempts.items()
    }
    return books.epoch, attempts, books.buckets, books.once


class BalancesContract(ABC):
    """Inherit it as `Test…`."""

    @abstractmethod
    def fed(self, traffic: Traffic, size: int = 10_000) -> AbstractContextManager[Balances]:
        """The port over a view that was fed the traffic's log in batches of `size`."""

    @abstractmethod
    def elsewhere(self, partition: int) -> int:
        """The watermark of `partition` as another process reads it."""

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(seed=st.integers(0, 10_000), size=st.integers(1, 60))
    def test_a_partition_is_the_fold_of_its_log(self, seed: int, size: int) -> None:
        """Buckets, open and unconfirmed holds, ended ids and once-keys equal the fold run straight."""
        traffic = Traffic(seed).run(40)
        with self.fed(traffic, size) as balances:
            for partition, end in enumerate(traffic.log.ends()):
                answer = balances.partition(partition)
                assert answer.watermark == end
                assert essence(answer.books) == essence(straight(traffic, partition, end))

    def test_ended_attempts_are_forgotten_after_a_day(self) -> None:
        """Over a log of five days only ends of the last day are known; open holds and money stay, however old."""
        traffic = Traffic(3, orgs=("acme",), step=timedelta(minutes=9)).run(800, plain=0.8)
        partition = partition_of("acme")
        books = straight(traffic, partition, 1 << 30)
        newest = max(fact.accounted_at for _, _, fact in traffic.facts if isinstance(fact, RequestAdmitted))

        def kept(known: Attempt) -> bool:
            at = known.accounted_at
            return known.state in LIVE or (at is not None and at >= newest - timedelta(hours=24))

        with self.fed(traffic, 100) as balances:
            answer = balances.partition(partition).books
        expected = {id for id, known in books.attempts.items() if kept(known)}
        voided = {id for id, known in books.attempts.items() if known.accounted_at is None}
        assert expected <= set(answer.attempts) <= expected | voided
        assert answer.buckets["acme", "cap", "1/lifetime"] == books.buckets["acme", "cap", "1/lifetime"]
        assert 0 < len(answer.once) < len(books.once)

    def test_overdue_gives_admissions_past_their_deadline(self) -> None:
        """Each open attempt is given with its admission once its deadline is over, not before."""
        traffic = Traffic(5).run(60)
        with self.fed(traffic) as balances:
            opened = {
                id
                for partition, end in enumerate(traffic.log.ends())
                for id, known in straight(traffic, partition, end).attempts.items()
                if known.state is State.OPEN
            }
            assert balances.overdue(traffic.now) == []
            late = balances.overdue(traffic.now + timedelta(minutes=11))
        assert {json.loads(one.body)["data"]["attempt"] for one in late} == opened
        assert all(one.partition == partition_of(json.loads(one.body)["org"]) for one in late)

    def test_unconfirmed_gives_those_of_one_organization_or_all(self) -> None:
        """An attempt is given with its admission while it is unconfirmed."""
        traffic = Traffic(5).run(80)
        waiting = {
            (key[0], id)
            for partition, end in enumerate(traffic.log.ends())
            for id, known in straight(traffic, partition, end).attempts.items()
            if known.state is State.UNCONFIRMED
            for key in known.buckets
        }
        with self.fed(traffic) as balances:
            found = {(d["org"], d["data"]["attempt"]) for d in (json.loads(o.body) for o in balances.unconfirmed())}
            acme = {json.loads(one.body)["data"]["attempt"] for one in balances.unconfirmed("acme")}
        assert found == waiting
        assert acme == {id for org, id in waiting if org == "acme"}

    @pytest.mark.parametrize("size", [1, 7, 10_000])
    def test_what_is_unconfirmed_says_where_it_went(self, size: int) -> None:
        """Its admission names every backend it might have gone to, until the fact that made it unconfirmed names one."""
        traffic = Traffic(5).run(200)
        with self.fed(traffic, size) as balances:
            waiting = [json.loads(one.body)["data"] for one in balances.unconfirmed()]
        expected: dict[str, tuple[str | None, tuple[str, ...]]] = {}
        for _, _, fact in traffic.facts:
            if isinstance(fact, RequestAdmitted):
                expected.setdefault(fact.attempt, (fact.backend, fact.others))
            elif isinstance(fact, RequestUnconfirmed) and fact.backend and expected[fact.attempt][1]:
                expected[fact.attempt] = (fact.backend, ())
        found = {data["attempt"]: (data["backend"], tuple(data.get("others", ()))) for data in waiting}
        assert found == {attempt: expected[attempt] for attempt in found}
        assert set(found.values()) == {("fake", ()), ("spare", ()), ("fake", ("spare",))}

    def test_awaiting_gives_those_named_that_are_unconfirmed(self) -> None:
        """With their admissions; of others nothing."""
        traffic = Traffic(5).run(80)
        with self.fed(traffic) as balances:
            every = {one.attempt: one for one in balances.unconfirmed()}
            assert all(json.loads(one.body)["data"]["attempt"] == id for id, one in every.items())
            some = list(every)[::2]
            ended = [fact.attempt for _, _, fact in traffic.facts if isinstance(fact, RequestCompleted)][:5]
            assert {one.attempt for one in balances.awaiting([*some, *ended, "nobody"])} == set(some) - set(ended)
            assert balances.awaiting([]) == []

    @pytest.mark.parametrize("size", [1, 7, 10_000])
    def test_overruns_gives_of_each_model_the_last_of_each_partition(self, size: int) -> None:
        """A completion that cost more than its hold, if it counted, however the log is cut into batches."""
        traffic = Traffic(7).run(400)
        expected, books = {}, {partition: Books() for partition in range(len(traffic.log.ends()))}
        for partition, _, fact in traffic.facts:
            state = books[partition].apply(fact)
            if isinstance(fact, RequestCompleted) and fact.overrun and state is State.DONE:
                expected[partition, fact.model] = Overrun(fact.model, fact.request, fact.attempt, fact.cost, fact.hold)
        with self.fed(traffic, size) as balances:
            found = balances.overruns()
        assert len(found) == len(expected) > 3
        assert {(one.attempt, one.cost) for one in found} == {(one.attempt, one.cost) for one in expected.values()}
        assert all(one in expected.values() for one in found)

    def test_another_process_reads_while_it_is_written(self) -> None:
        """The port works in a process that does not own the view."""
        traffic = Traffic(5, orgs=("acme",)).run(20)
        partition = partition_of("acme")
        with self.fed(traffic):
            assert self.elsewhere(partition) == traffic.log.ends()[partition]


class RowBalancesContract(BalancesContract):
    """The port over rows."""

    rows = "infra.adapters.sqlite_views.ViewsFile"
    """The store, which is made from a path or a URL."""

    @abstractmethod
    def place(self) -> AbstractContextManager[str]:
        """Where an empty store may be made."""

    @contextmanager
    def opened(self) -> Iterator[Rows]:
        with self.place() as self.where:
            rows = resolve_name(self.rows)(self.where)
            yield rows
            rows.close()

    @contextmanager
    def fed(self, traffic: Traffic, size: int = 10_000) -> Iterator[Balances]:
        with self.opened() as rows:
            store = RowStore(Catalog(rows), BalancesView())
            sink = store.open(store.live())
            engine = Engine(store.name, store.topic, sink, MemoryParking(), Policy.STOP, lambda: NOW)
            for batch in batches(traffic.log.all(), size):
                engine.feed(batch)
            yield RowBalances(rows)
            sink.close()

    def elsewhere(self, partition: int) -> int:
        code = (
            "import sys; from pkgutil import resolve_name\n"
            "from infra.adapters.row_holds import RowBalances\n"
            "rows = resolve_name(sys.argv[1])(sys.argv[2])\n"
            "print(RowBalances(rows).partition(int(sys.argv[3])).watermark)\n"
            "rows.close()"
        )
        command = [sys.executable, "-c", code, self.rows, self.where, str(partition)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def test_a_view_that_was_never_written_is_empty(self) -> None:
        """A first start finds nothing held, at the beginning of the log."""
        with self.opened() as rows:
            balances = RowBalances(rows)
            assert balances.partition(3) == PartitionBalances(0)
            assert balances.overdue(NOW) == []
            assert balances.unconfirmed() == []
            assert balances.awaiting(["a"]) == []
            assert balances.overruns() == []


class TestSqliteBalances(RowBalancesContract):
    """Balances in SQLite."""

    @contextmanager
    def place(self) -> Iterator[str]:
        with TemporaryDirectory() as folder:
            yield f"{folder}/views.db"


@pytest.mark.usefixtures("postgres_class")
class TestPostgresBalances(RowBalancesContract):
    """Balances in PostgreSQL."""

    postgres: PostgresServer
    rows = "infra.adapters.postgres_views.PostgresViews"

    def place(self) -> AbstractContextManager[str]:
        return self.postgres.database()
