"""Budgets as of a past moment: the log folded again, up to what had happened by then.

Reads the whole control topic and the organization's partition of facts, so it costs in proportion to what is in them.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from domain.budget import KIND
from domain.errors import Conflict
from domain.fold import Books
from domain.ids import PLATFORM, partition_of
from domain.period import window
from projections.balances import fold
from projections.decoding import decode
from projections.directory import Entry, evolve
from projections.ports import Event, LogReader, Poisoned, Record
from projections.reads.budgets import BudgetStanding, Sums, buckets_of, standing

_CHUNK = 5000


class _Glimpse(Struct):
    org: str
    stream: str
    occurred_at: datetime


_glimpse = msgspec.json.Decoder(_Glimpse).decode


class Past:
    """See the module. Synchronous; any thread. Raises `Unavailable`, `Conflict` (``projection_poisoned``)."""

    def __init__(self, control: LogReader, facts: LogReader) -> None:
        self._control, self._facts = control, facts

    def budgets(self, org: str, moment: datetime) -> Sequence[BudgetStanding]:
        """Every budget that the organization had at `moment`, by id."""
        entries = [entry for _, entry in sorted(self._entries(org, moment).items()) if not entry.removed]
        books = self._books(org, moment) if entries else Books()
        found = []
        for entry in entries:
            terms = entry.value()
            span = window(terms.period, moment)
            held = [books.buckets.get((org, entry.id, bucket)) for bucket in buckets_of(terms, span)]
            sums = Sums(
                sum(bucket.consumed for bucket in held if bucket),
                sum(bucket.held for bucket in held if bucket),
                sum(bucket.estimated for bucket in held if bucket),
            )
            found.append(standing(entry, terms, span, sums, moment))
        return found

    def _entries(self, org: str, moment: datetime) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        position = 0
        for record in _records(self._control, 0):
            if record.previous != position:
                continue
            position = record.position
            seen = _glimpse(record.value)
            if seen.stream.startswith(f"{org}/{KIND}/") and seen.occurred_at <= moment:
                entry = evolve(entries.get(seen.stream), _event(record))
                if entry is not None:
                    entries[seen.stream] = entry
        return entries

    def _books(self, org: str, moment: datetime) -> Books:
        books, newest = Books(), None
        for record in _records(self._facts, partition_of(org, self._facts.partitions)):
            seen = _glimpse(record.value)
            if seen.org in (org, PLATFORM) and seen.occurred_at <= moment:
                try:
                    newest = fold(books, newest, [_event(record)]).newest
                except Poisoned as poison:
                    raise _incomparable(poison) from poison
        return books


def _records(reader: LogReader, partition: int) -> Iterator[Record]:
    offset = 0
    while records := reader.read(partition, offset, _CHUNK):
        yield from records
        offset = records[-1].offset + 1


def _event(record: Record) -> Event:
    try:
        return decode(record)
    except Poisoned as poison:
        raise _incomparable(poison) from poison


def _incomparable(poison: Poisoned) -> Conflict:
    return Conflict(f"the past cannot be told past {poison}", code="projection_poisoned")
