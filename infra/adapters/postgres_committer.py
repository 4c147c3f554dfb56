"""Commits commands in groups: one thread carries out together what arrived while it carried out the last group.

Guarantees: a command that is refused, or that the database cannot store, fails alone. If the acknowledgement of a commit is
lost, the group is tried again and finds out what is in, so each command is appended once and answered with its own position.
"""

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from threading import Condition, Thread

from eventsourcing.persistence import (
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PersistenceError,
    StoredEvent,
)

from commands.ports import CommandRow
from domain.errors import Unavailable
from infra.adapters.postgres_recorder import Append, InDoubt, Outcome, PostgresRecorder

GROUP = 256
"""Commands in one transaction, at most."""

PATIENCE = 10.0
"""Seconds a command waits for its answer, and a group in doubt for the database to come back."""

RETRIES = 2.0
"""Seconds for which a group is tried of which nothing can be in: long enough for a restart of a healthy database."""

_PAUSE = 0.05
_log = logging.getLogger("tollhouse.journal")


class PostgresCommitter(PostgresRecorder):
    """`infra.adapters.recorded_journal.Recorder` on PostgreSQL."""

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        super().__init__(url)
        self._patience = patience
        self._waiting: deque[tuple[Append, Future[int]]] = deque()
        self._changed = Condition()
        self._closing = False
        self._thread = Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def commit(self, events: Sequence[StoredEvent], expected: Mapping[str, int], row: CommandRow | None) -> int:
        """See `Recorder`. Raises `Unavailable` when there is no answer in time; repeated with its key, the command tells."""
        future: Future[int] = Future()
        with self._changed:
            self._waiting.append((Append(events, expected, row), future))
            self._changed.notify()
        try:
            return future.result(self._patience)
        except NotInTime:
            future.cancel()
            raise Unavailable(
                "the journal did not answer in time: repeat the command with the same Idempotency-Key",
                code="journal_unavailable",
            ) from None

    def close(self) -> None:
        """See `Recorder`. What waits is carried out first."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        super().close()

    def _run(self) -> None:
        while group := self._next():
            futures = [future for _, future in group]
            try:
                outcomes = self._together([append for append, _ in group])
            except Exception as error:  # noqa: BLE001  # whoever waits is told; the thread serves the others
                outcomes = [error] * len(group)
            for future, outcome in zip(futures, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _next(self) -> list[tuple[Append, Future[int]]]:
        """What waits, at most `GROUP`. Empty: it is the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP))]
            if not taken:
                return []
            wanted = [(append, future) for append, future in taken if future.set_running_or_notify_cancel()]
            if wanted:
                return wanted

    def _together(self, appends: Sequence[Append]) -> list[Outcome | Exception]:
        try:
            return list(self._settled(appends))
        except (DataError, IntegrityError) as error:
            return [error] if len(appends) == 1 else [self._alone(append) for append in appends]

    def _alone(self, append: Append) -> Outcome | Exception:
        try:
            return self._settled([append])[0]
        except PersistenceError as error:
            return error

    def _settled(self, appends: Sequence[Append]) -> list[Outcome]:
        """Carries them out, and finds out about those that may be. Raises `PersistenceError` when that is over its time."""
        begun, doubt = time.monotonic(), False
        while True:
            try:
                return self._rest(appends) if doubt else self.commit_all(appends)
            except (InDoubt, OperationalError, InterfaceError) as error:
                doubt = doubt or isinstance(error, InDoubt)
                if time.monotonic() - begun > (self._patience if doubt else RETRIES):
                    raise
                _log.warning("commands are tried again%s: %s", ", their commit is in doubt" if doubt else "", error)
            time.sleep(_PAUSE)

    def _rest(self, appends: Sequence[Append]) -> list[Outcome]:
        """The positions of those that are in; the others are appended."""
        found = self.find_all(appends)
        appended = iter(self.commit_all([append for append, at in zip(appends, found, strict=True) if at is None]))
        return [next(appended) if at is None else at for at in found]
