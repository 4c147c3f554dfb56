"""`Journal` and `Feed` on one SQLite file, through the `eventsourcing` library's application recorder.

A command is durable once `append` has answered (``full``: also through a power cut; ``normal``: through any crash of the
process). Events are stored as the envelope's own bytes under their stable type name. Answers that contain a secret are
kept as ciphertext and erased after 24 hours. The file belongs to one process; its threads may call everything at once.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal

from eventsourcing.persistence import PersistenceError, StoredEvent

from commands.ports import Answer, Clock, LedgerEntry, Stored
from domain.envelope import Envelope, encode
from domain.errors import Unavailable
from infra.adapters.sealing import Sealing
from infra.adapters.sqlite_recorder import CommandRow, LedgerRecorder, open_datastore

KEPT = timedelta(hours=24)
"""How long an answer with a secret in it can be repeated."""


class SQLiteJournal:
    """See the module. Implements `commands.ports.Journal` and `commands.ports.Feed`."""

    def __init__(
        self, path: Path, secret: bytes, clock: Clock, synchronous: Literal["full", "normal"] = "full"
    ) -> None:
        self._clock = clock
        self._sealing = Sealing(secret, "answers")
        self._datastore = open_datastore(str(path), synchronous.upper())
        self._recorder = LedgerRecorder(self._datastore)
        with _unavailable():
            self._recorder.create_table()
        self.erase_secrets()

    def load(self, stream: str) -> Sequence[bytes]:
        """See `Journal.load`."""
        with _unavailable():
            return [event.state for event in self._recorder.select_events(stream)]

    def append(
        self, events: Sequence[Envelope], expected: Mapping[str, int], ledger: tuple[str, str, LedgerEntry] | None
    ) -> int:
        """See `Journal.append`."""
        stored = [StoredEvent(event.stream, event.version, event.type, encode(event)) for event in events]
        row = None if ledger is None else self._row(*ledger)
        with _unavailable():
            return self._recorder.commit(stored, expected, row)

    def answered(self, actor: str, key: str) -> LedgerEntry | None:
        """See `Journal.answered`."""
        with _unavailable():
            row = self._recorder.command(actor, key)
        if row is None:
            return None
        if row.sealed and row.body is not None and row.at <= self._forgotten():
            self.erase_secrets()
            return LedgerEntry(row.fingerprint, None)
        if row.body is None:
            return LedgerEntry(row.fingerprint, None)
        body = self._sealing.open(row.body, _context(row)) if row.sealed else row.body
        return LedgerEntry(row.fingerprint, Answer(row.status, body, row.position, row.etag, row.sealed))

    def after(self, position: int, limit: int) -> Sequence[Stored]:
        """See `Feed.after`."""
        with _unavailable():
            found = self._recorder.select_notifications(position, limit, inclusive_of_start=False)
        return [Stored(event.id, event.state) for event in found]

    def erase_secrets(self) -> None:
        """Erases the sealed answers that are `KEPT` old. To be called now and then: nothing older is ever answered."""
        with _unavailable():
            self._recorder.erase_sealed(self._forgotten())

    def _forgotten(self) -> int:
        return int((self._clock() - KEPT).timestamp())

    def close(self) -> None:
        """Closes the file. Nothing may be called afterwards."""
        self._datastore.close()

    def _row(self, actor: str, key: str, entry: LedgerEntry) -> CommandRow:
        answer = entry.answer
        if answer is None:
            raise ValueError("a command enters the ledger with its answer")
        row = CommandRow(
            actor=actor,
            key=key,
            fingerprint=entry.fingerprint,
            at=int(self._clock().timestamp()),
            status=answer.status,
            position=answer.position,
            etag=answer.etag,
            sealed=answer.sealed,
            body=answer.body,
        )
        if not answer.sealed:
            return row
        values = {name: getattr(row, name) for name in row.__struct_fields__}
        return CommandRow(**{**values, "body": self._sealing.seal(answer.body, _context(row))})


def _context(row: CommandRow) -> str:
    return f"{row.actor} {row.key} {row.fingerprint}"


@contextmanager
def _unavailable() -> Iterator[None]:
    """A failing database answers as `Unavailable`; nothing of the transaction was kept."""
    try:
        yield
    except (PersistenceError, sqlite3.Error) as error:
        raise Unavailable(f"the journal cannot be used: {error}", code="journal_unavailable") from error
