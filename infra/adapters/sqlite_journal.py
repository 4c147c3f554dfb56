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
from threading import Condition
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
        self._calls = Condition()
        self._running = 0
        self._closed = False
        self._sealing = Sealing(secret, "answers")
        self._datastore = open_datastore(str(path), synchronous.upper())
        self._recorder = LedgerRecorder(self._datastore)
        with self._using():
            self._recorder.create_table()
        self.erase_secrets()

    def load(self, stream: str) -> Sequence[bytes]:
        """See `Journal.load`."""
        with self._using():
            return [event.state for event in self._recorder.select_events(stream)]

    def append(
        self, events: Sequence[Envelope], expected: Mapping[str, int], ledger: tuple[str, str, LedgerEntry] | None
    ) -> int:
        """See `Journal.append`."""
        stored = [StoredEvent(event.stream, event.version, event.type, encode(event)) for event in events]
        row = None if ledger is None else self._row(*ledger)
        with self._using():
            return self._recorder.commit(stored, expected, row)

    def answered(self, actor: str, key: str) -> LedgerEntry | None:
        """See `Journal.answered`."""
        with self._using():
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
        with self._using():
            found = self._recorder.select_notifications(position, limit, inclusive_of_start=False)
        return [Stored(event.id, event.state) for event in found]

    def erase_secrets(self) -> None:
        """Erases the sealed answers that are `KEPT` old. To be called now and then: nothing older is ever answered."""
        with self._using():
            self._recorder.erase_sealed(self._forgotten())

    def _forgotten(self) -> int:
        return int((self._clock() - KEPT).timestamp())

    def close(self) -> None:
        """Closes the file once the calls under way have ended. Later calls raise `Unavailable`."""
        with self._calls:
            self._closed = True
            self._calls.wait_for(lambda: self._running == 0)
        self._datastore.close()

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Keeps the file open meanwhile: closing it under a running statement would crash the process. A failing database
        answers as `Unavailable`; nothing of the transaction was kept."""
        with self._calls:
            if self._closed:
                raise Unavailable("the journal is closed", code="journal_unavailable")
            self._running += 1
        try:
            yield
        except (PersistenceError, sqlite3.Error) as error:
            raise Unavailable(f"the journal cannot be used: {error}", code="journal_unavailable") from error
        finally:
            with self._calls:
                self._running -= 1
                self._calls.notify_all()

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
