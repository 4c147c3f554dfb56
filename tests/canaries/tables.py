"""Everything that stores hold, as bytes to look through."""

import gzip
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import clickhouse_connect
import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition

_TIMEOUT = 30.0


def folder(root: Path, but: frozenset[str]) -> dict[str, bytes]:
    """Each file of a data folder but those named `but`, and each SQLite database of it as SQL."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and path.name not in but:
            found[str(path)] = path.read_bytes()
            if path.suffix == ".db":
                with closing(sqlite3.connect(path)) as database:
                    found[f"{path} as SQL"] = "\n".join(database.iterdump()).encode("utf-8", "surrogateescape")
    return found


def analytics(root: Path) -> dict[str, bytes]:
    """Each table of an analytics engine's folder that nobody has open, in a process of its own."""
    ran = subprocess.run([sys.executable, "-m", "tests.canaries.tables", str(root)], capture_output=True, check=True)
    return {"the analytics tables": ran.stdout}


def unpacked(file: Path) -> bytes:
    """What a compressed file holds."""
    return gzip.decompress(file.read_bytes())


def clickhouse(client: Any) -> bytes:
    """Each table that the product made."""
    tables = client.query(
        "SELECT database, name FROM system.tables WHERE database NOT ILIKE '%schema' AND database != 'system'"
    )
    assert tables.result_rows
    return b"\n".join(
        client.raw_query(f"SELECT * FROM `{database}`.`{name}` FORMAT JSONEachRow")
        for database, name in tables.result_rows
    )


def postgres(url: str) -> dict[str, bytes]:
    """Each table; bytes are in hex."""
    found = {}
    with psycopg.connect(url) as connection:
        listed = connection.execute(
            b"SELECT table_schema, table_name FROM information_schema.tables"
            b" WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        for schema, table in listed.fetchall():
            rows = connection.execute(f'SELECT t::text FROM "{schema}"."{table}" t'.encode()).fetchall()
            found[f"{schema}.{table}"] = "\n".join(row[0] for row in rows).encode()
    return found


def kafka(servers: str) -> dict[str, bytes]:
    """Each topic: keys, values and headers of its records."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "nobody", "enable.partition.eof": True})
    try:
        topics = consumer.list_topics(timeout=_TIMEOUT).topics
        return {f"topic {name}": _records(consumer, name, list(topic.partitions)) for name, topic in topics.items()}
    finally:
        consumer.close()


def redis(url: str) -> dict[str, bytes]:
    """Each key, and what it holds."""
    import redis as client

    with closing(client.Redis.from_url(url)) as connection:
        found = b""
        for key in connection.scan_iter(count=1000):
            found += key + repr(_value(connection, key)).encode() + b"\n"
    assert found
    return {"Redis": found}


def _value(connection: Any, key: bytes) -> object:
    match connection.type(key):
        case b"hash":
            return connection.hgetall(key)
        case b"zset":
            return connection.zrange(key, 0, -1, withscores=True)
        case b"set":
            return connection.smembers(key)
        case b"list":
            return connection.lrange(key, 0, -1)
        case _:
            return connection.get(key)


def _records(consumer: Consumer, topic: str, partitions: list[int]) -> bytes:
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found: list[bytes] = []
    left = len(partitions)
    while left:
        message = consumer.poll(_TIMEOUT)
        assert message is not None, f"{topic} does not end"
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF, error
            left -= 1
            continue
        found += [message.key() or b"", message.value() or b"", repr(message.headers()).encode()]
    return b"\n".join(found)


if __name__ == "__main__":
    client = clickhouse_connect.get_client(interface="chdb", path=sys.argv[1])
    sys.stdout.buffer.write(clickhouse(client))
