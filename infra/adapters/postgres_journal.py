"""The journal in PostgreSQL (schema ``public`` of one database), for any number of processes.

A command is durable on the server's disk once `append` has answered. `append` and the reads wait about two seconds for a
database that is away, and up to ten for one that stands still, before they raise `Unavailable`.
"""

import psycopg
from eventsourcing.persistence import PersistenceError

from commands.ports import Clock
from infra.adapters.group_commit import PATIENCE
from infra.adapters.postgres_committer import PostgresCommitter
from infra.adapters.recorded_journal import RecordedJournal


class PostgresJournal(RecordedJournal):
    """`RecordedJournal` in the database at `url`; `patience` in seconds is how long a command waits for its answer."""

    failures = (PersistenceError, psycopg.Error)

    def __init__(self, url: str, secret: bytes, clock: Clock, patience: float = PATIENCE) -> None:
        super().__init__(PostgresCommitter(url, patience), secret, clock)
