"""``tollhouse bootstrap``: makes what the processes of distributed mode need, once; a second run changes nothing and says so."""

import asyncio
from collections.abc import Iterator

from cli.assembling import issue_first_admin_key
from cli.settings import Settings
from cli.stores import analytics_stores, row_stores
from cli.wiring_distributed import LEASE_SECONDS, RELAY, forwarded_later
from commands.handling import Commands
from domain.admin_key import AdminKeyIssued
from domain.credential import ADMIN, make_key
from domain.envelope import decode
from infra.adapters.clickhouse import check_named, open_analytics
from infra.adapters.clock import SteadyClock
from infra.adapters.ids import new_id
from infra.adapters.kafka_topics import create_topics
from infra.adapters.postgres_journal import PostgresJournal
from infra.adapters.postgres_lease import PostgresLease
from infra.adapters.postgres_tables import tables
from infra.adapters.postgres_views import PostgresViews
from infra.adapters.row_views import Catalog
from infra.adapters.secrets import InstallationSecrets
from projections.ports import Store

FIRST_KEY = "bootstrap"
"""The Idempotency-Key of the first admin key. Stored format."""

_BATCH = 1000


def bootstrap(settings: Settings) -> None:
    """Prints what it made, a line each. `settings` has kafka, postgres and secret. Raises `Unavailable` if a server does not
    answer, `Conflict` if a topic is there and not as it must be."""
    if settings.clickhouse is not None:
        check_named(settings.clickhouse)
    made = 0
    for line in _make(settings):
        made += 1
        print(line, flush=True)
    if not made:
        print("nothing to do: topics, tables, views and the first admin key are there")


def _make(settings: Settings) -> Iterator[str]:
    assert settings.kafka is not None
    assert settings.postgres is not None
    assert settings.secret is not None
    for topic in create_topics(settings.kafka):
        yield f"topic {topic}"
    before = tables(settings.postgres)
    secret = settings.secret.get_secret_value().encode()
    views = PostgresViews(settings.postgres)
    PostgresLease(settings.postgres, RELAY, new_id("prc"), LEASE_SECONDS).close()
    journal = PostgresJournal(settings.postgres, secret, SteadyClock())
    try:
        for table in sorted(tables(settings.postgres) - before):
            yield f"table {table}"
        for store in _stores(views, settings.clickhouse):
            if Catalog(views).live(store.name) is None:
                store.live()
                yield f"view {store.name}"
        key = asyncio.run(_first_admin_key(journal, InstallationSecrets(secret)))
        if key is not None:
            yield f"admin key {key}"
    finally:
        journal.close()
        views.close()


def _stores(views: PostgresViews, clickhouse: str | None) -> Iterator[Store]:
    """The views in PostgreSQL and, if it is named, in ClickHouse. Workers make what is missing, too."""
    catalog = Catalog(views)
    yield from (kept.store for kept in row_stores(catalog))
    if clickhouse is not None:
        analytics = open_analytics(clickhouse)
        try:
            yield from (kept.store for kept in analytics_stores(catalog, analytics))
        finally:
            analytics.close()


async def _first_admin_key(journal: PostgresJournal, secrets: InstallationSecrets) -> str | None:
    """The key, None if there was one before. It works as soon as a control process has forwarded it."""
    if await asyncio.to_thread(_has_admin_key, journal):  # bootstrapped before, or carried in with its keys
        return None
    key = make_key(ADMIN, secrets.random(256))
    commands = Commands(journal, SteadyClock(), secrets, forwarded_later)
    return key if await issue_first_admin_key(commands, key, FIRST_KEY) else None


def _has_admin_key(journal: PostgresJournal) -> bool:
    """Whether the journal ever had one. It may have other events before: gates are fenced as soon as there are topics."""
    at = 0
    while found := journal.after(at, _BATCH):
        if any(decode(stored.body).type == AdminKeyIssued.__name__ for stored in found):
            return True
        at = found[-1].position
    return False
