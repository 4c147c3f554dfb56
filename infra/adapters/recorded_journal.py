"""`Journal` and `Feed` over a recorder of the `eventsourcing` library, whichever store that writes to.

Events are stored as the envelope's own bytes under their stable type name. Answers that contain a secret are kept as
ciphertext and erased after 24 hours. Threads may call everything at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Condition
from typing import Protocol

from eventsourcing.persistence import PersistenceError, StoredEvent
from msgspec.structs import replace

from commands.ports import Answer, Clock, CommandRow, LedgerEntry, Stored
from domain.envelope import Envelope, encode
from domain.errors import Unavailable
from infra.adapters.group_commit import Append, GroupCommit
from infra.adapters.sealing import Sealing

EVENTS = "events"
"""Table of control events. Stored format."""

COMMANDS = "commands"
"""Table of the command ledger. Stored format."""

KEPT = timedelta(hours=24)
"""How long an answer with a secret in it can be repeated."""


class Recorder(Protocol):
    """What a store does for the journal."""

    def create_table(self) -> None:
        """Makes what is not there."""

    @property
    def commits(self) -> GroupCommit:
        """Commits events, expectations and ledger row of a command in one transaction, or none of them.

        Answers the position of the last event; with no events, the end of the journal (0 if it is empty). Raises
        `Conflict` (``command_id_taken``) before `VersionConflict`: of equal commands the later one must find the answer
        of the first rather than its effects.
        """

    def command(self, actor: str, key: str) -> CommandRow | None:
        """The ledger row of a command that was carried out."""

    def erase_sealed(self, before: int) -> None:
        """Erases the sealed answers given at or before `before` (unix seconds)."""

    def select_events(self, originator_id: str) -> Sequence[StoredEvent]:
        """The events of one stream, in order."""

    def after(self, position: int, limit: int) -> Sequence[Stored]:
        """See `Feed.after`."""

    def close(self) -> None:
        """Gives up the store. Nothing is called afterwards."""


class RecordedJournal:
    """See the module. Implements `commands.ports.Journal` and `commands.ports.Feed`."""

    failures: tuple[type[Exception], ...] = (PersistenceError,)
    """What the recorder raises when its store fails."""

    def __init__(self, recorder: Recorder, secret: bytes, clock: Clock) -> None:
        self._clock = clock
        self._calls = Condition()
        self._running = 0
        self._closed = False
        self._sealing = Sealing(secret, "answers")
        self._recorder = recorder
        try:
            with self._using():
                recorder.create_table()
            self.erase_secrets()
        except BaseException:
            self.close()
            raise

    def load(self, stream: str) -> Sequence[bytes]:
        """See `Journal.load`."""
        with self._using():
            return [event.state for event in self._recorder.select_events(stream)]

    def append(
        self, events: Sequence[Envelope], expected: Mapping[str, int], ledger: tuple[str, str, LedgerEntry] | None
    ) -> int:
        """As `appended`, in a thread."""
        with self._told():
            return self._recorder.commits.append(self._append(events, expected, ledger))

    async def appended(
        self, events: Sequence[Envelope], expected: Mapping[str, int], ledger: tuple[str, str, LedgerEntry] | None
    ) -> int:
        """See `Journal.appended`."""
        with self._told():
            return await self._recorder.commits.appended(self._append(events, expected, ledger))

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
            return self._recorder.after(position, limit)

    def erase_secrets(self) -> None:
        """Erases the sealed answers that are `KEPT` old. To be called now and then: nothing older is ever answered."""
        with self._using():
            self._recorder.erase_sealed(self._forgotten())

    def _forgotten(self) -> int:
        return int((self._clock() - KEPT).timestamp())

    def close(self) -> None:
        """Closes the store once the calls under way have ended, and what was to be appended is. Later calls raise
        `Unavailable`."""
        with self._calls:
            self._closed = True
            self._calls.wait_for(lambda: self._running == 0)
        self._recorder.close()

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Keeps the store open meanwhile: closing it under a running statement may crash the process."""
        with self._calls:
            if self._closed:
                raise Unavailable("the journal is closed", code="journal_unavailable")
            self._running += 1
        try:
            with self._told():
                yield
        finally:
            with self._calls:
                self._running -= 1
                self._calls.notify_all()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A failing store answers as `Unavailable`."""
        try:
            yield
        except self.failures as error:
            raise Unavailable(f"the journal cannot be used: {error}", code="journal_unavailable") from error

    def _append(
        self, events: Sequence[Envelope], expected: Mapping[str, int], ledger: tuple[str, str, LedgerEntry] | None
    ) -> Append:
        stored = [StoredEvent(event.stream, event.version, event.type, encode(event)) for event in events]
        return Append(stored, expected, None if ledger is None else self._row(*ledger))

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
        return replace(row, body=self._sealing.seal(answer.body, _context(row))) if answer.sealed else row


def _context(row: CommandRow) -> str:
    return f"{row.actor} {row.key} {row.fingerprint}"
