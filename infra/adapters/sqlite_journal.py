"""The journal on one SQLite file.

A command is durable once `append` has answered (``full``: also through a power cut; ``normal``: through any crash of the
process). The file belongs to one process.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from eventsourcing.persistence import PersistenceError

from commands.ports import Clock, CommandRow
from infra.adapters.recorded_journal import RecordedJournal
from infra.adapters.sqlite_recorder import open_recorder


class SQLiteJournal(RecordedJournal):
    """`RecordedJournal` in the file at `path`, made if it is not there."""

    failures = (PersistenceError, sqlite3.Error)

    def __init__(
        self, path: Path, secret: bytes, clock: Clock, synchronous: Literal["full", "normal"] = "full"
    ) -> None:
        self._ledger = open_recorder(str(path), synchronous.upper())
        super().__init__(self._ledger, secret, clock)

    def ledger(self) -> Sequence[CommandRow]:
        """Every command that was carried out under an Idempotency-Key."""
        with self._using():
            return self._ledger.commands()
