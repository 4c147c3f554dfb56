"""Commits groups of commands, and finds out about those of which nobody knows whether they are in.

Guarantees: a command that is refused fails alone. If the acknowledgement of a commit is
lost, the group is tried again and finds out what is in, so each command is appended once and answered with its own position.
"""

import logging
import time
from collections.abc import Sequence

from eventsourcing.persistence import InterfaceError, OperationalError

from infra.adapters.group_commit import PATIENCE, Append, GroupCommit, Outcome
from infra.adapters.postgres_recorder import InDoubt, PostgresRecorder

RETRIES = 2.0
"""Seconds for which a group is tried of which nothing can be in: long enough for a restart of a healthy database."""

_PAUSE = 0.05
_log = logging.getLogger("tollhouse.journal")


class PostgresCommitter(PostgresRecorder):
    """`infra.adapters.recorded_journal.Recorder` on PostgreSQL. A group in doubt waits `patience` seconds for the database to
    come back, as each command does for its answer."""

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        super().__init__(url)
        self._patience = patience
        self.commits = GroupCommit(self._settled, patience)

    def close(self) -> None:
        """See `Recorder`. What waits is carried out first."""
        self.commits.close()
        super().close()

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
