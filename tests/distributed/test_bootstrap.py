"""`tollhouse bootstrap`, and how processes start and end."""

import asyncio
import socket
import subprocess
from pathlib import Path

import pytest

from infra.adapters.kafka_topics import check_topics
from tests.distributed.conftest import bootstrapped
from tests.distributed.house import House, Installation, Process, unique
from tests.http1 import Cut
from tests.lab import TOLLHOUSE, _clean_environ
from tests.waiting import eventually, until


def run(installation: Installation, folder: Path, *words: str, without: str) -> tuple[int, str]:
    """Exit code and stderr of a process whose environment lacks one setting."""
    environ = {name: value for name, value in installation.environ.items() if name != without}
    ran = subprocess.run(
        [TOLLHOUSE, *words], env=_clean_environ() | environ, cwd=folder, check=False, capture_output=True, text=True
    )
    return ran.returncode, ran.stderr


def test_a_second_run_changes_nothing_and_says_so(installation: Installation, tmp_path: Path) -> None:
    """Topics are right after the first run; the second makes none, and no other admin key."""
    assert check_topics(installation.environ["TOLLHOUSE_KAFKA"]) == []
    assert installation.admin_key.startswith("th_ak_")
    said = bootstrapped(dict(installation.environ), tmp_path)
    assert said == "nothing to do: topics, tables, views and the first admin key are there\n"


@pytest.mark.parametrize(
    ("process", "name"),
    [
        ("bootstrap", "TOLLHOUSE_KAFKA"),
        ("bootstrap", "TOLLHOUSE_POSTGRES"),
        ("bootstrap", "TOLLHOUSE_SECRET"),
        ("gateway", "TOLLHOUSE_KAFKA"),
        ("gateway", "TOLLHOUSE_REDIS"),
        ("gateway", "TOLLHOUSE_SECRET"),
        ("control", "TOLLHOUSE_POSTGRES"),
        ("control", "TOLLHOUSE_SECRET"),
    ],
)
def test_a_missing_setting_is_named(installation: Installation, tmp_path: Path, process: str, name: str) -> None:
    """Exit code 2, and the name of the setting."""
    code, said = run(installation, tmp_path, process, without=name)
    assert (code, name in said) == (2, True)


NOWHERE = {
    "TOLLHOUSE_KAFKA": "127.0.0.1:1",
    "TOLLHOUSE_POSTGRES": "postgresql://nobody@127.0.0.1:1/none",
    "TOLLHOUSE_REDIS": "redis://127.0.0.1:1/0",
}


@pytest.mark.parametrize(
    ("kind", "missing", "awaited", "path"),
    [
        ("gateway", "KAFKA", "waiting for Kafka", "/v1/chat/completions"),
        ("gateway", "REDIS", "the gate does not answer: waiting for Redis", "/v1/chat/completions"),
        ("control", "KAFKA", "waiting for Kafka", "/admin/v1/orgs"),
        ("control", "POSTGRES", "waiting for PostgreSQL", "/admin/v1/orgs"),
    ],
)
async def test_a_process_waits_for_what_it_needs_and_says_so(
    house: House, kind: str, missing: str, awaited: str, path: str
) -> None:
    """Without one of its servers a process lives, is not ready, refuses with 503, names what it waits for in its log and in
    /readyz, and ends cleanly when it is told to."""
    name = f"TOLLHOUSE_{missing}"
    process = house.make(kind, **{name: NOWHERE[name]})
    await process.child.spawn()
    await until(lambda: process.says("waiting for") or missing == "REDIS", "the line")
    await eventually(lambda: answering(process), bool)
    assert awaited in await eventually(process.reasons, lambda reasons: reasons == [awaited])
    assert (await process.http.call("GET", "/healthz")).status == 200
    key = {"authorization": "Bearer th_sk_unknown"}
    refused = await process.http.call("POST", path, {}, key)
    assert (refused.status, refused.code) == ((503, "not_ready") if missing != "REDIS" else (401, "invalid_api_key"))
    assert b"tollhouse_not_ready_reasons 1" in (await process.http.call("GET", "/metrics")).body
    assert await process.stop() == 0
    assert "ready" not in " ".join(process.child.said)


async def answering(process: Process) -> bool:
    try:
        return (await process.http.call("GET", "/healthz")).status == 200
    except Cut:
        return False


async def test_processes_drain_and_end_cleanly(house: House) -> None:
    """A gateway told to end while a request is under way answers it first; every process ends with exit code 0."""
    fake = await house.fake()
    await house.begin()
    org, model = unique("org"), unique("model")
    await house.model(model, fake.url, backend=unique("backend"))
    key = (await house.org(org))["main"]
    gate = fake.gates[model] = asyncio.Event()
    under_way = asyncio.create_task(house.chat(key, model))
    await until(lambda: bool(fake.received), "the request at the backend")
    gateway = house.gateways[0]
    gateway.child.terminate()
    await until(lambda: not accepts(gateway), "no more connections")
    gate.set()
    assert (await under_way).status == 200
    assert await gateway.child.ended() == 0
    for process in (*house.controls, *house.gatekeepers):
        assert await process.stop() == 0
    assert [fact.type for fact in await house.facts(org)] == ["RequestAdmitted", "RequestCompleted"]


def accepts(process: Process) -> bool:
    address = process.child.command[-1].split(":")
    with socket.socket() as probe:
        return probe.connect_ex((address[0], int(address[1]))) == 0
