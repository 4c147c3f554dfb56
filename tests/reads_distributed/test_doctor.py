"""`tollhouse doctor` where servers are named: each is asked, and what is wrong comes with what to do about it."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from domain.ids import partition_of
from infra.adapters.secrets import InstallationSecrets
from infra.stack import Stack
from projections.ports import CONTROL
from tests.bookkeeping import SECRET, make_books
from tests.lab import TOLLHOUSE
from tests.reads_distributed.house import Reading, reading
from tests.waiting import eventually


@pytest_asyncio.fixture
async def house(stack: Stack) -> AsyncIterator[Reading]:
    async with reading(stack, make_books(InstallationSecrets(SECRET))) as made:
        yield made


async def examined(environ: Mapping[str, str], folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and findings."""
    ran = await asyncio.to_thread(
        lambda: subprocess.run(
            [TOLLHOUSE, "doctor", "-o", "json"],
            env={**environ, "TOLLHOUSE_SECRET": SECRET.decode()},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    )
    rows: list[dict[str, Any]] = json.loads(ran.stdout)["data"]
    return ran.returncode, rows


def wrong(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Seen and fix of what is not ok, by check."""
    return {row["check"]: f"{row['seen']} -> {row['fix']}" for row in rows if not row["ok"]}


async def test_a_sound_installation_has_nothing_to_fix(house: Reading, tmp_path: Path) -> None:
    """Versions, topics, clocks and time zones of all four servers; of a read process how far each view is. Exit 0."""
    house.write_control()
    house.write_facts(house.books.facts)
    await asyncio.gather(house.home.join(), house.open())
    await house.home.caught_up()
    asking = {
        "TOLLHOUSE_URL": house.url,
        "TOLLHOUSE_ADMIN_KEY": house.books.keys["root"],
        "TOLLHOUSE_REDIS": house.home.stack.urls["redis"],
    }
    code, rows = await examined(house.home.environ | asking, tmp_path)
    assert wrong(rows) == {}
    assert code == 0
    seen = [(row["check"], row["seen"]) for row in rows]
    assert {check for check, _ in seen} >= {
        "kafka",
        "topics",
        "postgres",
        "redis",
        "clickhouse",
        "eviction",
        "durability",
    }
    assert [told.split()[0] for check, told in seen if check == "clock"] == ["postgres", "redis", "clickhouse"]
    assert [told for check, told in seen if check == "time zone"] == ["postgres has UTC", "clickhouse has UTC"]


async def test_what_is_wrong_comes_with_its_fix(house: Reading, tmp_path: Path) -> None:
    """A topic that forgets, a wrong password, a server that does not run, a time zone, a memory that evicts: one line each."""
    stack, environ = house.home.stack, dict(house.home.environ)
    admin = AdminClient({"bootstrap.servers": stack.urls["kafka"]})
    hour = ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
    forgetful = ConfigResource(ConfigResource.Type.TOPIC, CONTROL, incremental_configs=[hour])
    admin.incremental_alter_configs([forgetful])[forgetful].result(10)
    with psycopg.connect(environ["TOLLHOUSE_POSTGRES"], autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Kathmandu'".encode())
    environ["TOLLHOUSE_CLICKHOUSE"] = environ["TOLLHOUSE_CLICKHOUSE"].replace("tollhouse:", "tollhouse:x")
    environ["TOLLHOUSE_REDIS"] = "redis://127.0.0.1:1/0"
    code, rows = await examined(environ, tmp_path)
    found = wrong(rows)
    assert code == 6
    assert f"topic {CONTROL} has retention.ms=3600000 and must have -1" in found["topics"]
    assert "516" in found["clickhouse"]
    assert "TOLLHOUSE_REDIS" in found["redis"]
    assert found["time zone"] == "postgres has Asia/Kathmandu -> set the time zone of postgres to UTC"


async def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """One server named is distributed mode: every other one must be named too."""
    environ = {"PATH": "/usr/bin:/bin", "TOLLHOUSE_POSTGRES": "postgresql://nobody@127.0.0.1:1/x"}
    code, rows = await examined(environ, tmp_path)
    assert code == 6
    assert set(wrong(rows)) == {"kafka", "redis", "clickhouse", "postgres"}
    environ["TOLLHOUSE_CLICKHOUSE"] = "tcp://host/db"
    _, rows = await examined(environ, tmp_path)
    assert "TOLLHOUSE_CLICKHOUSE" in wrong(rows)["clickhouse"]


@pytest.mark.parametrize("poison", [b"{}"])
async def test_a_view_that_stands_still_is_found(house: Reading, tmp_path: Path, poison: bytes) -> None:
    """No worker runs while facts wait, or events are parked: both are findings, with the command that helps."""
    house.write_control()
    worker = await house.home.join()
    await house.open()
    house.write_facts([(partition_of("acme"), poison)])
    await house.home.caught_up()
    await worker.stop()
    house.write_facts(house.books.facts)
    asking = {
        "TOLLHOUSE_URL": house.url,
        "TOLLHOUSE_ADMIN_KEY": house.books.keys["root"],
        "TOLLHOUSE_REDIS": house.home.stack.urls["redis"],
    }

    async def found() -> dict[str, str]:
        return wrong((await examined(house.home.environ | asking, tmp_path))[1])

    seen = await eventually(found, lambda found: "view" in found, 60)
    assert "tollhouse worker" in seen["view"]
    assert "tollhouse parked list" in seen["parked"]
