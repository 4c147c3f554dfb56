"""The `Balances` port over the balances view: what a gate needs to open, and what the keeper looks after.

Reads only; usable in any process that can open the store, also before the view was ever written.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from commands.ports import Overdue, Overrun, PartitionBalances
from domain.fold import Attempt, Books, Bucket, State
from infra.adapters.row_balances import _pairs, epoch_of, load_buckets, micros, moment_of, newest_of
from infra.adapters.row_views import Database, Rows, listed, live_version, marks_of
from projections.balances import NAME, horizon
from projections.ports import Mark

SETTLED = timedelta(days=2)
"""A bucket that left its last window this long before the newest admission, and holds nothing, is of no use to a gate."""


class RowBalances:
    """See `commands.ports.Balances`. Raises `Unavailable`."""

    def __init__(self, file: Rows) -> None:
        self._file = file

    def watermarks(self) -> Mapping[int, int]:
        """See `Balances`."""
        with self._file.reading() as db:
            version = live_version(db, NAME)
            marks = {} if version is None else marks_of(db, NAME, version)
            return {partition: mark.offset for partition, mark in marks.items()}

    def partition(self, partition: int) -> PartitionBalances:
        """See `Balances`."""
        with self._file.reading() as db:
            version = live_version(db, NAME)
            if version is None:
                return PartitionBalances(0)
            mark = marks_of(db, NAME, version).get(partition, Mark())
            newest = newest_of(db, version, partition)
            books = Books(epoch=epoch_of(db, version, partition))
            _attempts(db, version, partition, newest, books)
            _buckets(db, version, partition, newest, books)
            # a hold of nothing leaves no trace in its bucket, which may be old: whoever ends it looks for the bucket
            held = {key for known in books.attempts.values() for key in known.buckets}
            load_buckets(db, version, books, held - books.buckets.keys())
            _once(db, version, partition, newest, books)
            admissions = db.execute(
                f"SELECT attempt, body FROM balances_attempts_{version} WHERE partition = ? AND state = 'open'",
                (partition,),
            )
            opened = dict(admissions.fetchall())
            return PartitionBalances(mark.offset, books, opened, _parked(db, version, partition))

    def overdue(self, now: datetime) -> Sequence[Overdue]:
        """See `Balances`."""
        return self._admissions("state = 'open' AND deadline < ?", micros(now), order="deadline")

    def unconfirmed(self, org: str | None = None) -> Sequence[Overdue]:
        """See `Balances`."""
        if org is None:
            return self._admissions("state = 'unconfirmed'")
        return self._admissions("state = 'unconfirmed' AND org = ?", org)

    def awaiting(self, attempts: Sequence[str]) -> Sequence[Overdue]:
        """See `Balances`."""
        named = "attempt IN (SELECT value ->> 0 FROM json_each(?))"
        return self._admissions(f"state = 'unconfirmed' AND {named}", listed(attempts))

    def overruns(self) -> Sequence[Overrun]:
        """See `Balances`."""
        with self._file.reading() as db:
            version = live_version(db, NAME)
            if version is None:
                return []
            sql = (
                f"SELECT model, request, attempt, cost, hold FROM balances_overruns_{version} ORDER BY model, partition"
            )
            return [Overrun(*row) for row in db.execute(sql)]

    def _admissions(self, condition: str, *params: object, order: str = "attempt") -> Sequence[Overdue]:
        """In an order that the index of `condition` has: for another one, every attempt of the view would be looked at."""
        with self._file.reading() as db:
            version = live_version(db, NAME)
            if version is None:
                return []
            sql = f"SELECT partition, attempt, body FROM balances_attempts_{version} WHERE {condition} ORDER BY {order}"
            return [Overdue(*row) for row in db.execute(sql, params)]


def _parked(db: Database, version: int, partition: int) -> list[tuple[int, bytes]]:
    found = db.execute(
        'SELECT "offset", body FROM parked WHERE projection = ? AND partition = ? AND dropped = 0 ORDER BY "offset"',
        (NAME, partition),
    ).fetchall()
    return [(epoch_of(db, version, partition, offset), bytes(body)) for offset, body in found]


def _attempts(db: Database, version: int, partition: int, newest: datetime | None, books: Books) -> None:
    states = {state.value: state for state in State}
    found = db.execute(
        f"SELECT attempt, state, accounted_at, hold, org, buckets FROM balances_attempts_{version}"
        " WHERE partition = ? AND (accounted_at >= ? OR accounted_at IS NULL)"
        f" UNION SELECT attempt, state, accounted_at, hold, org, buckets FROM balances_attempts_{version}"
        " WHERE partition = ? AND state IN ('open', 'unconfirmed')",
        (partition, micros(horizon(newest)) or 0, partition),
    )
    for attempt, state, accounted_at, hold, org, pairs in found:
        held = () if pairs is None else tuple((org, budget, bucket) for budget, bucket in _pairs(pairs))
        books.attempts[attempt] = Attempt(states[state], moment_of(accounted_at), hold, held)


def _buckets(db: Database, version: int, partition: int, newest: datetime | None, books: Books) -> None:
    since = None if newest is None else newest - SETTLED
    found = db.execute(
        f"SELECT org, budget, bucket, consumed, held, estimated, until FROM balances_buckets_{version}"
        " WHERE partition = ? AND (until IS NULL OR until > ? OR held != 0 OR estimated != 0)",
        (partition, micros(since) or 0),
    )
    for org, budget, bucket, consumed, held, estimated, until in found:
        books.buckets[org, budget, bucket] = Bucket(consumed, held, estimated, moment_of(until))


def _once(db: Database, version: int, partition: int, newest: datetime | None, books: Books) -> None:
    found = db.execute(
        f"SELECT once, request, accounted_at FROM balances_once_{version} WHERE partition = ? AND accounted_at >= ?",
        (partition, micros(horizon(newest)) or 0),
    )
    for once, request, accounted_at in found:
        at = moment_of(accounted_at)
        if at is not None:
            books.once[once] = (request, at)
