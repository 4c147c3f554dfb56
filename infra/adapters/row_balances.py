"""The balances view in rows. The fold itself is `projections.balances`; the `Balances` port over it is `row_holds`."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from domain.fold import LIVE, Attempt, Books, Bucket, BucketKey, State
from infra.adapters.row_views import Database, listed, scalar, tabled, upsert
from projections.balances import NAME, Changes, attempts_of, buckets_of, fold, horizon, placed, replay
from projections.ports import FACTS, Event, Span

_SCHEMA = Path(__file__).with_suffix(".sql").read_text()
_TABLES = ("attempts", "buckets", "once", "epochs", "partitions", "overruns")
_ATTEMPT = ("attempt", "partition", "org", "state", "accounted_at", "hold", "deadline", "buckets", "body")
_BUCKET = ("org", "budget", "bucket", "partition", "consumed", "held", "estimated", "until")
_ONCE = ("once", "partition", "request", "accounted_at")
_OVERRUN = ("model", "partition", "offset", "request", "attempt", "cost", "hold")
_PRUNE_EVERY = timedelta(minutes=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LIVE = f"('{State.OPEN}', '{State.UNCONFIRMED}')"

_json = msgspec.json.Encoder().encode
_pairs = msgspec.json.Decoder(list[tuple[str, str]]).decode


def micros(moment: datetime | None) -> int | None:
    """Microseconds since 1970; exact until the year 2100."""
    return None if moment is None else int(moment.timestamp()) * 1_000_000 + moment.microsecond


def moment_of(us: int | None) -> datetime | None:
    """The time of `micros`, UTC."""
    return None if us is None else _EPOCH + timedelta(microseconds=us)


class BalancesView:
    """`RowView` of balances. One instance per sink: it remembers when it pruned last."""

    name = NAME
    topic = FACTS

    def __init__(self) -> None:
        self._pruned: dict[tuple[int, int], datetime] = {}

    def tables(self, version: int) -> Sequence[str]:
        """See `RowView`."""
        return [f"balances_{table}_{version}" for table in _TABLES]

    def schema(self, version: int) -> str:
        """See `RowView`."""
        return _SCHEMA.format(v=version)

    def apply(self, db: Database, version: int, span: Span, held_back: frozenset[str]) -> None:
        """See `RowView`."""
        books = load(db, version, span.partition, span.events)
        changes = fold(books, newest_of(db, version, span.partition), span.events)
        _write(db, version, span.partition, changes)
        self._prune(db, version, span.partition, changes.newest, held_back)

    def replay(self, db: Database, version: int, event: Event) -> None:
        """See `RowView`. The epoch is that of the event's place in the log."""
        books = load(db, version, event.partition, [event], before=event.offset)
        changes = replay(books, event)
        newest = newest_of(db, version, event.partition)
        changes.newest = max((t for t in (newest, changes.newest) if t is not None), default=None)
        _write(db, version, event.partition, changes)

    def rows(self, version: int) -> Sequence[str]:
        """See `RowView`. What is forgotten may still be stored, and is left out."""
        v = version
        newest = f"(SELECT newest FROM balances_partitions_{v} p WHERE p.partition = t.partition)"
        remembered = f"(accounted_at IS NULL OR {newest} IS NULL OR accounted_at >= {newest} - {_REMEMBER_US})"
        return [
            f"SELECT * FROM balances_attempts_{v} t WHERE state IN {_LIVE} OR {remembered} ORDER BY attempt",
            f"SELECT * FROM balances_buckets_{v} ORDER BY org, budget, bucket",
            f"SELECT * FROM balances_once_{v} t WHERE {remembered} ORDER BY once",
            f'SELECT * FROM balances_epochs_{v} ORDER BY partition, "offset"',
            f"SELECT * FROM balances_partitions_{v} ORDER BY partition",
            f"SELECT * FROM balances_overruns_{v} ORDER BY model, partition",
        ]

    def _prune(
        self, db: Database, version: int, partition: int, newest: datetime | None, held_back: frozenset[str]
    ) -> None:
        limit = horizon(newest)
        last = self._pruned.get((version, partition))
        if limit is None or (last is not None and limit - last < _PRUNE_EVERY):
            return
        self._pruned[version, partition] = limit
        db.execute(
            f"DELETE FROM balances_attempts_{version} WHERE partition = ? AND accounted_at < ? AND state NOT IN {_LIVE}"
            " AND org NOT IN (SELECT value ->> 0 FROM json_each(?))",
            (partition, micros(limit), listed(held_back)),
        )
        db.execute(
            f"DELETE FROM balances_once_{version} WHERE partition = ? AND accounted_at < ?", (partition, micros(limit))
        )


_REMEMBER_US = -int(horizon(_EPOCH).timestamp()) * 1_000_000  # type: ignore[union-attr]  # not None: _EPOCH is not


def newest_of(db: Database, version: int, partition: int) -> datetime | None:
    """The accounted time of the newest admission of a partition."""
    return moment_of(
        scalar(db, f"SELECT max(newest) FROM balances_partitions_{version} WHERE partition = ?", partition)
    )


def epoch_of(db: Database, version: int, partition: int, before: int | None = None) -> int:
    """The epoch of a partition, as of now or as of the offset `before`."""
    limit = 1 << 62 if before is None else before
    sql = f'SELECT max(epoch) FROM balances_epochs_{version} WHERE partition = ? AND "offset" < ?'
    return scalar(db, sql, partition, limit) or 0


def load(db: Database, version: int, partition: int, events: Sequence[Event], before: int | None = None) -> Books:
    """The books of a partition, as far as `events` touch them."""
    books = Books(epoch=epoch_of(db, version, partition, before))
    keys = buckets_of(events)
    found = db.execute(
        f"SELECT attempt, state, accounted_at, hold, org, buckets FROM balances_attempts_{version}"
        " WHERE attempt IN (SELECT value ->> 0 FROM json_each(?))",
        (listed(attempts_of(events)),),
    )
    for attempt, state, accounted_at, hold, org, pairs in found:
        held = () if pairs is None else tuple((org, budget, bucket) for budget, bucket in _pairs(pairs))
        keys.update(held)
        books.attempts[attempt] = Attempt(State(state), moment_of(accounted_at), hold, held)
    load_buckets(db, version, books, keys)
    return books


def load_buckets(db: Database, version: int, books: Books, keys: Iterable[BucketKey]) -> None:
    """Adds the buckets of `keys`, as far as there are such."""
    found = db.execute(
        f"SELECT org, budget, bucket, consumed, held, estimated, until FROM balances_buckets_{version}"
        " WHERE (org, budget, bucket) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))",
        (tabled(keys),),
    )
    for org, budget, bucket, consumed, held, estimated, until in found:
        books.buckets[org, budget, bucket] = Bucket(consumed, held, estimated, moment_of(until))


def _write(db: Database, version: int, partition: int, changes: Changes) -> None:
    books = changes.books
    whole: list[tuple[object, ...]] = []
    marked: list[tuple[str]] = []
    for id, org, now in changes.changed():
        if now.state not in LIVE:
            whole.append((id, partition, org, now.state.value, micros(now.accounted_at), 0, None, None, None))
        elif (admission := changes.admissions.get(id)) is not None:
            fact, body = admission
            if now.state is State.UNCONFIRMED and id in changes.placed:
                body = placed(body, changes.placed[id])
            pairs = _json([key[1:] for key in now.buckets]).decode()
            at, deadline = micros(now.accounted_at), micros(fact.deadline)
            whole.append((id, partition, org, now.state.value, at, now.hold, deadline, pairs, body))
        else:
            marked.append((id,))
    forgotten = [(id,) for id in changes.forgotten]
    db.executemany(f"DELETE FROM balances_attempts_{version} WHERE attempt = ?", forgotten)
    db.executemany(upsert(f"balances_attempts_{version}", _ATTEMPT, key=("attempt",)), whole)
    db.executemany(f"UPDATE balances_attempts_{version} SET state = '{State.UNCONFIRMED}' WHERE attempt = ?", marked)
    _place(db, version, {id: changes.placed[id] for (id,) in marked if id in changes.placed})
    db.executemany(
        upsert(f"balances_buckets_{version}", _BUCKET, key=("org", "budget", "bucket")),
        [
            (*key, partition, bucket.consumed, bucket.held, bucket.estimated, micros(bucket.until))
            for key, bucket in books.buckets.items()
        ],
    )
    db.executemany(
        upsert(f"balances_once_{version}", _ONCE, key=("once",)),
        [(once, partition, books.once[once][0], micros(books.once[once][1])) for once in changes.once],
    )
    db.executemany(
        upsert(f"balances_epochs_{version}", ("partition", "offset", "epoch"), key=("partition", "offset")),
        [(partition, offset, epoch) for offset, epoch in changes.epochs],
    )
    db.executemany(
        upsert(f"balances_overruns_{version}", _OVERRUN, key=("model", "partition"))
        + f' WHERE excluded."offset" > balances_overruns_{version}."offset"',
        [
            (model, partition, offset, fact.request, fact.attempt, fact.cost, fact.hold)
            for model, (offset, fact) in changes.overruns.items()
        ],
    )
    if changes.newest is not None:
        row = (partition, micros(changes.newest))
        db.execute(upsert(f"balances_partitions_{version}", ("partition", "newest"), key=("partition",)), row)


def _place(db: Database, version: int, backends: dict[str, str]) -> None:
    """Writes down where attempts went that are unconfirmed now, by their ids."""
    if not backends:
        return
    found = db.execute(
        f"SELECT attempt, body FROM balances_attempts_{version} WHERE attempt IN (SELECT value ->> 0 FROM json_each(?))",
        (listed(backends),),
    ).fetchall()
    known = [
        (better, attempt)
        for attempt, body in found
        if (better := placed(bytes(body), backends[attempt])) != bytes(body)
    ]
    db.executemany(f"UPDATE balances_attempts_{version} SET body = ? WHERE attempt = ?", known)
