"""What the servers of distributed mode say about themselves. Each is asked once; nothing is changed and nothing is made.

Raises `Unavailable` with the server's own words, or the client's.
"""

import re
import time
from collections.abc import Callable

import psycopg
import redis
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from msgspec import Struct

from domain.errors import Unavailable
from infra.adapters.clickhouse import server_client
from infra.adapters.kafka_clients import connect

PATIENCE = 5
"""Seconds a server may take to answer."""

_NUMBER = re.compile(r"\d+")


class ServerFacts(Struct, frozen=True, kw_only=True):
    """`version` as far as it is compared. `ahead`: seconds that the server's clock is ahead of ours; None: it tells no time.
    `timezone` None: it has none. `settings`: those that promises rest on, as the server has them."""

    version: tuple[int, ...]
    ahead: float | None = None
    timezone: str | None = None
    settings: dict[str, str] = {}


def postgres_facts(url: str) -> ServerFacts:
    """Settings: whether a commit is on the disk when it is acknowledged."""
    try:
        with psycopg.connect(url, connect_timeout=PATIENCE) as connection:

            def value(sql: bytes) -> str:
                row = connection.execute(sql).fetchone()
                return "" if row is None else str(row[0])

            return ServerFacts(
                version=_version(value(b"SHOW server_version")),
                ahead=_ahead(lambda: float(value(b"SELECT extract(epoch FROM clock_timestamp())"))),
                timezone=value(b"SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'"),
                settings={name: value(b"SHOW " + name.encode()) for name in ("fsync", "synchronous_commit")},
            )
    except psycopg.Error as error:
        raise Unavailable(f"PostgreSQL: {error}".strip().splitlines()[0]) from error


def redis_facts(url: str) -> ServerFacts:
    """Settings: what it does when its memory is full."""
    try:
        client = redis.Redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        try:
            told = {str(name): str(value) for name, value in client.info().items()}

            def clock() -> float:
                seconds, micros = client.time()
                return float(seconds) + float(micros) / 1e6

            return ServerFacts(
                version=_version(told["redis_version"]),
                ahead=_ahead(clock),
                settings={"maxmemory-policy": told["maxmemory_policy"]},
            )
        finally:
            client.close()
    except (redis.RedisError, ValueError) as error:
        raise Unavailable(f"Redis: {error}") from error


def clickhouse_facts(url: str) -> ServerFacts:
    """Of a server; the engine in process has this machine's clock."""
    try:
        client = server_client(url, patience=PATIENCE)
        try:
            return ServerFacts(
                version=_version(str(client.command("SELECT version()"))),
                ahead=_ahead(lambda: float(str(client.command("SELECT toUnixTimestamp64Micro(now64(6))"))) / 1e6),
                timezone=str(client.command("SELECT timezone()")),
            )
        finally:
            client.close()
    except ClickHouseError as error:
        raise Unavailable(f"ClickHouse: {error!s:.300}".splitlines()[0]) from error


def kafka_facts(servers: str) -> tuple[ServerFacts, int]:
    """And how many brokers there are."""
    try:
        admin = connect(KafkaAdminClient, servers, PATIENCE, client_id="tollhouse-doctor")
        try:
            brokers = len(admin.describe_cluster()["brokers"])
            return ServerFacts(version=tuple(admin._manager.broker_version)), brokers
        finally:
            admin.close()
    except KafkaError as error:
        raise Unavailable(f"Kafka: {error!r}") from error


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in _NUMBER.findall(text)[:2])


def _ahead(clock: Callable[[], float]) -> float:
    """As of the middle of the question."""
    before = time.time()
    there = clock()
    return there - (before + time.time()) / 2
