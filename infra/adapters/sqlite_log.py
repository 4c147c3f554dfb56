"""The log of embedded mode: both topics in one SQLite file, with the partitions and offsets Kafka will have.

Guarantees: an awaited append is durable (`synchronous=FULL`: through power loss; `NORMAL`: through kill -9); order of
calls is order in a partition; offsets have no holes. Everything in flight shares one commit: a row holds a commit's
records of one partition, because a row per record costs a third of the throughput.
Not guaranteed: after `LogUnavailable` a record may still be in the log. One writer per file: the folder lock sees to it.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

import msgspec

from commands.ports import Stored
from domain.errors import LogUnavailable
from domain.ids import PARTITIONS
from projections.ports import CONTROL, FACTS, Record

_SCHEMA = """
CREATE TABLE IF NOT EXISTS segments (
    id INTEGER PRIMARY KEY,  -- lane << 40 | offset of the first record; lane 0 is control, lane p + 1 is facts partition p
    records INTEGER NOT NULL,
    body BLOB NOT NULL       -- MessagePack: array of values (facts) or of [position, previous, value] (control)
)
"""
_SHIFT = 40
_CONTROL_LANE = 0
_BUSY_SECONDS = 1.0

_INSERTS = [f"INSERT INTO segments VALUES {', '.join(['(?, ?, ?)'] * rows)}" for rows in range(PARTITIONS + 2)]
"""By number of rows."""

_pack = msgspec.msgpack.Encoder().encode
_values = msgspec.msgpack.Decoder(list[bytes]).decode
_chained = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]]).decode

_logger = logging.getLogger("tollhouse.log")

Tail = Callable[[int, int, Sequence[bytes]], None]
"""Called on the event loop after each commit: partition of facts, offset of the first record, their values."""

Item = bytes | tuple[int, int, bytes]
_Batch = list[tuple[int, Item, "asyncio.Future[int]"]]


class SqliteLog:
    """The writer: `FactLog` and `ControlLog`. Create and use it on one event loop; `close` when done."""

    def __init__(self, path: Path, synchronous: Literal["full", "normal"] = "full") -> None:
        self._path, self._synchronous = path, synchronous
        self._loop = asyncio.get_running_loop()
        self._pending: _Batch = []
        self._busy = False
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._tails: list[Tail] = []
        self._ends: list[int] = [0] * (PARTITIONS + 1)
        self._connection = self._connect()
        self._thread = threading.Thread(target=self._write_batches, name="log-writer", daemon=True)
        self._thread.start()

    def append(self, partition: int, body: bytes) -> "asyncio.Future[int]":
        """See `commands.ports.FactLog`."""
        return self._enqueue(partition + 1, body)

    def ends(self) -> Sequence[int]:
        """The next offset of each facts partition, as far as this loop has seen commits."""
        return self._ends[1:]

    def control_end(self) -> int:
        return self._ends[_CONTROL_LANE]

    def on_commit(self, tail: Tail) -> None:
        self._tails.append(tail)

    async def tail(self) -> int:
        """See `commands.ports.ControlLog`."""
        reader = SqliteLogReader(self._path, CONTROL)
        try:
            end = reader.ends()[0]
            return reader.read(0, end - 1, 1)[-1].position if end else 0
        finally:
            reader.close()

    async def forward(self, previous: int, events: Sequence[Stored]) -> None:
        """See `commands.ports.ControlLog`."""
        waits = []
        for event in events:
            waits.append(self._enqueue(_CONTROL_LANE, (event.position, previous, event.body)))
            previous = event.position
        await asyncio.gather(*waits)

    async def close(self) -> None:
        """Writes what is in flight, then ends."""
        while self._busy or self._pending:
            waits = [future for _, _, future in self._pending] or [self._loop.create_future()]
            await asyncio.wait(waits, timeout=0.01)
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _enqueue(self, lane: int, item: Item) -> "asyncio.Future[int]":
        future = self._loop.create_future()
        self._pending.append((lane, item, future))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._send)
        return future

    def _send(self) -> None:
        batch, self._pending = self._pending, []
        self._queue.put(batch)

    # -- writer thread

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS, cached_statements=8
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        connection.execute(_SCHEMA)
        self._ends = [_end(connection, lane) for lane in range(PARTITIONS + 1)]
        return connection

    def _write_batches(self) -> None:
        healthy = True
        ends = list(self._ends)
        while (batch := self._queue.get()) is not None:
            try:
                if not healthy:  # a failed commit may have left anything: read the truth again
                    self._connection.close()
                    self._connection = self._connect()
                    ends, healthy = list(self._ends), True
                lanes: dict[int, list[Item]] = {}
                for lane, item, _ in batch:
                    lanes.setdefault(lane, []).append(item)
                row: list[int | bytes] = []
                for lane, items in lanes.items():
                    row += (lane << _SHIFT | ends[lane], len(items), _pack(items))
                # One statement is one transaction: each call more into SQLite gives up the interpreter lock once more.
                self._connection.execute(_INSERTS[len(lanes)], row)
            except (sqlite3.Error, OSError, MemoryError) as error:
                healthy = False
                self._loop.call_soon_threadsafe(self._failed, batch, error)
                continue
            except Exception as error:  # a bug: those who wait must not wait for ever
                _logger.exception("the log's writer")
                healthy = False
                self._loop.call_soon_threadsafe(self._failed, batch, error)
                continue
            firsts = {lane: ends[lane] for lane in lanes}
            for lane, items in lanes.items():
                ends[lane] += len(items)
            self._loop.call_soon_threadsafe(self._committed, batch, lanes, firsts)

    def _committed(self, batch: _Batch, lanes: dict[int, list[Item]], firsts: dict[int, int]) -> None:
        self._next()
        offsets = dict(firsts)
        for lane, _, future in batch:
            offset = offsets[lane]
            offsets[lane] = offset + 1
            if not future.done():
                future.set_result(offset)
        for lane, items in lanes.items():
            self._ends[lane] = offsets[lane]
            if lane != _CONTROL_LANE:
                for tail in self._tails:
                    tail(lane - 1, firsts[lane], items)  # type: ignore[arg-type]  # lanes of facts hold plain values

    def _failed(self, batch: _Batch, error: Exception) -> None:
        self._next()
        for _, _, future in batch:
            if not future.done():
                future.set_exception(LogUnavailable(f"the log cannot be written: {error}"))

    def _next(self) -> None:
        """Whatever came while the last commit ran is the next commit."""
        if self._pending:
            self._send()
        else:
            self._busy = False


class SqliteLogReader:
    """`projections.ports.LogReader` of one topic, in any process, also while the writer writes."""

    def __init__(self, path: Path, topic: str) -> None:
        self.topic = topic
        self.partitions = PARTITIONS if topic == FACTS else 1
        self._first_lane = 1 if topic == FACTS else _CONTROL_LANE
        self._connection = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
        )
        self._lock = threading.Lock()
        self._known: tuple[int, list[int]] | None = None

    def close(self) -> None:
        self._connection.close()

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        """See `LogReader`."""
        lane = self._first_lane + partition
        records: list[Record] = []
        with self._lock, _unavailable():
            first = self._connection.execute(
                "SELECT max(id) FROM segments WHERE id BETWEEN ? AND ?", (lane << _SHIFT, lane << _SHIFT | offset)
            ).fetchone()[0]
            if first is None:
                return records
            rows = self._connection.execute(
                "SELECT id, body FROM segments WHERE id >= ? AND id < ? ORDER BY id", (first, lane + 1 << _SHIFT)
            )
            for key, body in rows:
                start = key & (1 << _SHIFT) - 1
                if lane == _CONTROL_LANE:
                    found = [Record(0, start + i, v, pos, prev) for i, (pos, prev, v) in enumerate(_chained(body))]
                else:
                    found = [Record(partition, start + i, v) for i, v in enumerate(_values(body))]
                records += found if start >= offset else found[offset - start :]
                if len(records) >= limit:
                    break
        return records

    def ends(self) -> Sequence[int]:
        """See `LogReader`."""
        with self._lock, _unavailable():
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            if self._known is None or self._known[0] != version:
                lanes = range(self._first_lane, self._first_lane + self.partitions)
                self._known = (version, [_end(self._connection, lane) for lane in lanes])
            return self._known[1]

    def end(self, partition: int) -> int:
        """The next offset of a partition, as of now."""
        return self.ends()[partition]

    def wait(self, seen: Sequence[int], timeout: float) -> bool:
        """See `LogReader`. Another process writes the file, so it is asked again every few milliseconds."""
        deadline = time.monotonic() + timeout
        while True:
            if any(end > known for end, known in zip(self.ends(), seen, strict=True)):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, 0.01))


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LogUnavailable(f"the log cannot be read: {error}") from error


def _end(connection: sqlite3.Connection, lane: int) -> int:
    row = connection.execute(
        "SELECT id, records FROM segments WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1",
        (lane << _SHIFT, (lane + 1 << _SHIFT) - 1),
    ).fetchone()
    return 0 if row is None else (row[0] & (1 << _SHIFT) - 1) + row[1]
