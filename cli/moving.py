"""``tollhouse events export`` and ``import``: an embedded folder moves into a distributed installation, books and all."""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from pathlib import Path

from cli.settings import Settings, needed
from cli.wiring import installation_secret, utc_now
from commands.moving import ControlRecord, FactRecord, Head, JournalEvent, Moved, Progress, carry_in
from commands.ports import CommandRow, Stored
from domain.envelope import decode
from domain.errors import NotFound
from domain.ids import PARTITIONS
from infra.adapters.clock import SteadyClock
from infra.adapters.data_folder import DataFolder, FolderLock
from infra.adapters.event_archive import EventArchive, write_archive
from infra.adapters.kafka_control import KafkaControlLog
from infra.adapters.kafka_facts import KafkaFactLog
from infra.adapters.kafka_reader import KafkaLogReader
from infra.adapters.kafka_topics import create_topics
from infra.adapters.postgres_journal import PostgresJournal
from infra.adapters.postgres_restore import restore_journal
from infra.adapters.secrets import InstallationSecrets
from infra.adapters.sqlite_journal import SQLiteJournal
from infra.adapters.sqlite_log import SqliteLogReader
from projections.ports import CONTROL, FACTS, Record

_CHUNK = 2_000
_PATIENCE = 30.0
"""Seconds a record may wait for its acknowledgement: nobody serves meanwhile, and thousands wait at once."""


def export(settings: Settings, file: Path, progress: Progress) -> Head:
    """Writes the stopped folder's journal and log to a new file. Raises `NotFound`, and `Conflict` if a server has the folder."""
    folder = DataFolder(settings.data)
    if not folder.log.exists():
        raise NotFound(f"{folder.root} holds no log: it is no data folder, or was never started")
    lock = FolderLock(folder, "lock")
    lock.take()
    try:
        secret = installation_secret(settings, folder)
        journal = SQLiteJournal(folder.journal, secret, SteadyClock())
        control, facts = SqliteLogReader(folder.log, CONTROL), SqliteLogReader(folder.log, FACTS)
        try:
            total = sum(control.ends()) + sum(facts.ends())
            return write_archive(
                file,
                utc_now(),
                _fingerprint(secret),
                PARTITIONS,
                _journal(journal),
                journal.ledger(),
                (ControlRecord(r.position, r.previous, r.value) for r in _records(control, progress, 0, total)),
                (FactRecord(r.partition, r.value) for r in _records(facts, progress, sum(control.ends()), total)),
            )
        finally:
            for part in (journal, control, facts):
                part.close()
    finally:
        lock.release()


def import_(settings: Settings, file: Path, progress: Progress) -> Moved:
    """Carries the file into new topics and an empty database; makes those that are not there. Raises as `carry_in` does, and
    `Invalid` naming settings that are missing."""
    needed(settings, "events import", "kafka", "postgres", "secret")
    assert settings.kafka is not None
    assert settings.postgres is not None
    assert settings.secret is not None
    archive = EventArchive(file)
    secret = settings.secret.get_secret_value().encode()
    create_topics(settings.kafka)
    PostgresJournal(settings.postgres, secret, SteadyClock()).close()  # makes its tables
    return asyncio.run(_carry(settings.kafka, settings.postgres, archive, _fingerprint(secret), progress))


async def _carry(kafka: str, postgres: str, archive: EventArchive, secret: str, progress: Progress) -> Moved:
    into = _Distributed(kafka, postgres)
    try:
        return await carry_in(archive, into, secret, PARTITIONS, progress)
    finally:
        await into.close()


class _Distributed:
    """`commands.moving.Empty`: Kafka and PostgreSQL."""

    def __init__(self, kafka: str, postgres: str) -> None:
        self.control, self.facts = KafkaLogReader(kafka, CONTROL), KafkaLogReader(kafka, FACTS)
        self.log = KafkaFactLog(kafka, patience=_PATIENCE)
        self._chain, self._postgres = KafkaControlLog(kafka), postgres

    def restore(self, events: Iterable[JournalEvent], commands: Iterable[CommandRow]) -> int:
        """See `Empty`."""
        return restore_journal(self._postgres, events, commands)

    def forward(self, previous: int, events: Sequence[Stored]) -> Awaitable[None]:
        """See `Empty`."""
        return self._chain.forward(previous, events)

    async def close(self) -> None:
        await self.log.close()
        await self._chain.close()
        self.control.close()
        self.facts.close()


def _fingerprint(secret: bytes) -> str:
    """Tells secrets apart without telling them."""
    return InstallationSecrets(secret).hash("the secret of an installation")


def _journal(journal: SQLiteJournal) -> Iterator[JournalEvent]:
    position = 0
    while found := journal.after(position, _CHUNK):
        for stored in found:
            envelope = decode(stored.body)
            yield JournalEvent(envelope.stream, envelope.version, envelope.type, stored.position, stored.body)
        position = found[-1].position


def _records(reader: SqliteLogReader, progress: Progress, before: int, total: int) -> Iterator[Record]:
    for partition, end in enumerate(reader.ends()):
        offset = 0
        while offset < end:
            found = reader.read(partition, offset, _CHUNK)
            yield from found
            offset += len(found)
            before += len(found)
            progress(before, total)
