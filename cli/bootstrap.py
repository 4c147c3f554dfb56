"""``tollhouse bootstrap``: makes what the processes of distributed mode need, once; a second run changes nothing and says so."""

import asyncio
from collections.abc import Iterator

from cli.assembling import issue_first_admin_key
from cli.serving import needed
from cli.settings import Settings
from cli.wiring_distributed import LEASE_SECONDS
from cli.wiring_distributed_control import RELAY
from commands.handling import Commands
from domain.credential import ADMIN, make_key
from infra.adapters.clock import SteadyClock
from infra.adapters.ids import new_id
from infra.adapters.kafka_topics import create_topics
from infra.adapters.postgres_journal import PostgresJournal
from infra.adapters.postgres_lease import PostgresLease
from infra.adapters.postgres_tables import tables
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.secrets import InstallationSecrets

FIRST_KEY = "bootstrap"
"""The Idempotency-Key of the first admin key. Stored format."""


def bootstrap(settings: Settings) -> None:
    """Prints what it made, a line each. Raises `Invalid` naming each setting that is missing, `Unavailable` if a server does not
    answer, `Conflict` if a topic is there and not as it must be."""
    needed(settings, "bootstrap", "kafka", "postgres", "secret")
    made = 0
    for line in _make(settings):
        made += 1
        print(line, flush=True)
    if not made:
        print("nothing to do: topics, tables and the first admin key are there")


def _make(settings: Settings) -> Iterator[str]:
    assert settings.kafka is not None
    assert settings.postgres is not None
    assert settings.secret is not None
    for topic in create_topics(settings.kafka):
        yield f"topic {topic}"
    before = tables(settings.postgres)
    secret = settings.secret.get_secret_value().encode()
    PostgresViews(settings.postgres).close()
    PostgresLease(settings.postgres, RELAY, new_id("prc"), LEASE_SECONDS).close()
    journal = PostgresJournal(settings.postgres, secret, SteadyClock())
    try:
        for table in sorted(tables(settings.postgres) - before):
            yield f"table {table}"
        # ClickHouse's tables belong here, once there is an adapter for its server.
        key = asyncio.run(_first_admin_key(journal, InstallationSecrets(secret)))
        if key is not None:
            yield f"admin key {key}"
    finally:
        journal.close()


async def _first_admin_key(journal: PostgresJournal, secrets: InstallationSecrets) -> str | None:
    """The key, None if there was one before. It works as soon as a control process has forwarded it."""
    if await asyncio.to_thread(journal.answered, "system", FIRST_KEY) is not None:
        return None
    key = make_key(ADMIN, secrets.random(256))
    await issue_first_admin_key(Commands(journal, SteadyClock(), secrets, _forwarded_later), key, FIRST_KEY)
    return key


async def _forwarded_later(position: int) -> None:
    """No relay runs yet."""
