"""Moving an installation: its journal and its log, as they are, into another one that is empty.

Ids, order and places stay: a journal position, the chain of control records and every offset are the same afterwards, so
every view of the new log is the view of the old one. Nothing may run on either side meanwhile.

Guarantees: what is there already is compared byte by byte, and has to be a beginning of what is carried in; so a move that was
interrupted goes on where it stopped, one that is repeated changes nothing, and nothing is ever written behind other records.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby, islice
from typing import Protocol, TypeVar

from msgspec import Struct

from commands.ports import CommandRow, FactLog, Stored
from domain.errors import Conflict, invalid

FORMAT = 1
"""Of what is carried. Stored format."""

_CHUNK = 2_000
T = TypeVar("T")
Progress = Callable[[int, int], None]


class Head(Struct, frozen=True, kw_only=True):
    """What is carried: `secret` is a keyed hash that only the same secret makes; the rest are counts of records."""

    format: int
    made_at: datetime
    secret: str
    partitions: int
    journal: int
    commands: int
    control: int
    facts: int

    @property
    def records(self) -> int:
        return self.journal + self.commands + self.control + self.facts


class JournalEvent(Struct, frozen=True):
    """A control event at its place in the journal."""

    stream: str
    version: int
    type: str
    position: int
    body: bytes


class ControlRecord(Struct, frozen=True):
    """A record of the control topic with its link."""

    position: int
    previous: int
    body: bytes


class FactRecord(Struct, frozen=True):
    """A record of the facts topic; they come partition by partition, in order."""

    partition: int
    body: bytes


class Archive(Protocol):
    """An installation to be carried in. Reading raises `Invalid` if it is not whole."""

    @property
    def head(self) -> Head: ...

    def journal(self) -> Iterator[JournalEvent]: ...

    def commands(self) -> Iterator[CommandRow]: ...

    def control(self) -> Iterator[ControlRecord]: ...

    def facts(self) -> Iterator[FactRecord]: ...


class Topic(Protocol):
    """What is in a topic already. Synchronous."""

    def ends(self) -> Sequence[int]: ...

    def read(self, partition: int, offset: int, limit: int) -> Sequence["Placed"]: ...


class Placed(Protocol):
    """A record at its place."""

    @property
    def value(self) -> bytes: ...

    @property
    def position(self) -> int: ...

    @property
    def previous(self) -> int: ...


class Empty(Protocol):
    """The installation to carry into."""

    @property
    def control(self) -> Topic: ...

    @property
    def facts(self) -> Topic: ...

    @property
    def log(self) -> FactLog: ...

    def restore(self, events: Iterable[JournalEvent], commands: Iterable[CommandRow]) -> int:
        """Puts events and ledger into the journal in one transaction, positions and all; answers how many it had not.

        Raises `Conflict` (``not_empty``) if the journal holds anything else.
        """

    def forward(self, previous: int, events: Sequence[Stored]) -> Awaitable[None]:
        """See `commands.ports.ControlLog`."""


class Moved(Struct, frozen=True, kw_only=True):
    """How many records were written; the others were there already."""

    journal: int
    control: int
    facts: int
    there_already: int


async def carry_in(archive: Archive, into: Empty, secret: str, partitions: int, progress: Progress) -> Moved:
    """Writes everything that is not there yet. `secret` is the hash that the archive's head must name.

    Raises `Conflict` (``partition_count``, ``other_secret``, ``not_empty``) before anything is written, also ``not_empty`` in the
    middle if somebody else writes meanwhile: into new topics then; `LogUnavailable` or `Unavailable` in the middle: run it again.
    """
    head = archive.head
    _require(head, secret, partitions)
    done = 0

    def wrote(count: int) -> None:
        nonlocal done
        done += count
        progress(done, head.records)

    control = (await asyncio.to_thread(into.control.ends))[0]
    await asyncio.to_thread(_same_beginning, into.control, 0, control, (_linked(r) for r in archive.control()))
    there = await asyncio.to_thread(_facts_there, archive, into.facts, partitions)
    journal = await asyncio.to_thread(into.restore, archive.journal(), archive.commands())
    wrote(head.journal + head.commands)
    for chain in _chains(islice(archive.control(), control, None)):
        await into.forward(chain[0].previous, [Stored(record.position, record.body) for record in chain])
        wrote(len(chain))
    facts = await _append(archive, into.log, there, wrote)
    written = journal + head.control - control + facts
    return Moved(journal=journal, control=head.control - control, facts=facts, there_already=head.records - written)


def _require(head: Head, secret: str, partitions: int) -> None:
    if head.format != FORMAT:
        raise invalid("file", f"is of format {head.format}; this version reads format {FORMAT}")
    if head.partitions != partitions:
        raise Conflict(
            f"the file has {head.partitions} partitions of facts, and this installation {partitions}: "
            "organizations would change their places",
            code="partition_count",
        )
    if head.secret != secret:
        raise Conflict(
            "TOLLHOUSE_SECRET is not the secret that the file's keys are hashed with: take over that of the old installation",
            code="other_secret",
        )


_Comparable = tuple[int, int, bytes]


def _linked(record: ControlRecord) -> _Comparable:
    return record.position, record.previous, record.body


def _facts_there(archive: Archive, topic: Topic, partitions: int) -> Sequence[int]:
    """Of each partition, how many records of the archive are in the topic."""
    ends = topic.ends()
    unnamed = set(range(partitions))
    for partition, records in groupby(archive.facts(), key=lambda record: record.partition):
        _same_beginning(topic, partition, ends[partition], ((0, 0, record.body) for record in records))
        unnamed.discard(partition)
    for partition in unnamed:
        _same_beginning(topic, partition, ends[partition], iter(()))
    return ends


def _same_beginning(topic: Topic, partition: int, end: int, wanted: Iterator[_Comparable]) -> None:
    """Raises `Conflict` unless the records of the partition, `end` in number, are the first of `wanted`."""
    offset = 0
    while offset < end:
        found = topic.read(partition, offset, _CHUNK)
        for record in found:
            if next(wanted, None) != (record.position, record.previous, record.value):
                raise Conflict(
                    f"partition {partition} holds another record at offset {offset}: carry it into new topics",
                    code="not_empty",
                )
            offset += 1


def _chains(records: Iterator[ControlRecord]) -> Iterator[list[ControlRecord]]:
    """Runs of records of which each continues the one before; the topic may hold others, which its readers ignore."""
    run: list[ControlRecord] = []
    for record in records:
        if run and (record.previous != run[-1].position or len(run) >= _CHUNK):
            yield run
            run = []
        run.append(record)
    if run:
        yield run


async def _append(archive: Archive, log: FactLog, there: Sequence[int], wrote: Callable[[int], None]) -> int:
    """Appends the facts beyond those that are there, each to the offset that it had."""
    seen = [0] * len(there)
    total = 0
    for chunk in _chunks(archive.facts()):
        places: list[tuple[int, int]] = []
        waits: list[Awaitable[int]] = []
        for record in chunk:
            if seen[record.partition] >= there[record.partition]:
                places.append((record.partition, seen[record.partition]))
                waits.append(log.append(record.partition, record.body))
            seen[record.partition] += 1
        for (partition, offset), at in zip(places, await asyncio.gather(*waits), strict=True):
            if at != offset:
                raise Conflict(
                    f"a record of partition {partition} came to offset {at}, not {offset}: somebody else writes, or a record "
                    "was doubled while a broker was away; carry it into new topics",
                    code="not_empty",
                )
        total += len(places)
        wrote(len(chunk))
    return total


def _chunks(items: Iterator[T]) -> Iterator[list[T]]:
    while chunk := list(islice(items, _CHUNK)):
        yield chunk
