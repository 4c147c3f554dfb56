"""A team outgrows one process: its folder's journal and log, carried to Kafka and PostgreSQL, make the same views."""

import asyncio
import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.adapters.kafka_reader import KafkaLogReader
from infra.stack import Stack
from projections.ports import CONTROL, FACTS
from tests.lab import TOLLHOUSE, Key, Lab, _clean_environ
from tests.moving.views import hashes
from tests.stack import fresh_stack
from tests.waiting import eventually

NEVER_SET = "another secret than the one that keys were hashed with"


@pytest.fixture
def empty() -> Iterator[Stack]:
    """An installation without topics and tables."""
    with fresh_stack() as stack:
        yield stack


def run(environ: dict[str, str], folder: Path, *words: str) -> tuple[int, str, str]:
    """The command line, on an installation."""
    ran = subprocess.run(
        [TOLLHOUSE, *words],
        env=_clean_environ() | environ,
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ran.returncode, ran.stdout, ran.stderr


async def lived_in(lab: Lab) -> tuple[Key, list[dict[str, object]]]:
    """A folder with served, streamed, refused and half finished requests, and commands under keys; what its views hash to."""
    hello = await lab.hello()
    await lab.model("m", hello.url)
    keys = await lab.org("acme", ("main", "other"))
    await lab.org("umbrella")
    await lab.budget("acme", "cap", "0.002")
    await lab.admin(
        "POST", "/orgs/acme/budgets/cap/adjust", {"amount_usd": "0.0001", "reason": "x"}, idempotency_key="k"
    )
    for number in range(40):
        await lab.chat(keys["main"], "m", max_tokens=40, header_idempotency_key=f"once-{number}")
    stream = await lab.stream(keys["other"], "m", max_tokens=2)
    while await stream.piece():
        pass
    stopped = await lab.fake()
    stopped.gates["slow"] = asyncio.Event()
    await lab.model("slow", stopped.url, backend="slow")
    waiting = asyncio.ensure_future(lab.chat(keys["other"], "slow", max_tokens=2))
    await eventually(lambda: lab.balance("acme", "cap"), lambda balance: balance.held > 0)
    code, out, err = await lab.run("replay", "verify", "-o", "json")
    assert code == 0, err
    await lab.product.kill()
    await asyncio.gather(waiting, return_exceptions=True)
    return keys["main"], json.loads(out)["data"]


async def test_a_folder_moves_with_equal_hashes(lab: Lab, empty: Stack, tmp_path: Path) -> None:
    """Every view of the new log is the view of the old one; keys work as before; a second import changes nothing."""
    _, before = await lived_in(lab)
    archive = tmp_path / "books.gz"
    assert (await lab.run("events", "export", str(archive)))[0] == 0
    secret = (lab.data / "secret").read_text().strip()
    environ = empty.environment | {"TOLLHOUSE_SECRET": secret}
    code, out, err = run(environ, tmp_path, "events", "import", str(archive), "-o", "json")
    assert code == 0, err
    written = json.loads(out)["data"][0]
    assert written["facts"] > 80
    assert written["there_already"] == 0
    code, out, err = run(environ, tmp_path, "events", "import", str(archive), "-o", "json")
    again = json.loads(out)["data"][0]
    assert (again["journal"], again["control"], again["facts"]) == (0, 0, 0)
    assert again["there_already"] == sum(written.values())
    after = await asyncio.to_thread(hashes, empty, tmp_path)
    assert after == {row["name"]: (row["events"], row["live_hash"]) for row in before}
    code, out, err = run(environ, tmp_path, "bootstrap")
    assert (code, "admin key" in out) == (0, False), err


async def test_an_import_that_was_killed_goes_on(lab: Lab, empty: Stack, tmp_path: Path) -> None:
    """What is there is the beginning of what is carried in; the rest follows, at its places."""
    _, before = await lived_in(lab)
    archive = tmp_path / "books.gz"
    await lab.run("events", "export", str(archive))
    environ = empty.environment | {"TOLLHOUSE_SECRET": (lab.data / "secret").read_text().strip()}
    kafka = empty.environment["TOLLHOUSE_KAFKA"]
    for seconds in (0.8, 1.2, 1.6):
        child = await asyncio.create_subprocess_exec(
            TOLLHOUSE, "events", "import", str(archive), env=_clean_environ() | environ
        )
        await asyncio.sleep(seconds)  # a kill at any moment, also before it began or after it ended, must do no harm
        if child.returncode is None:
            child.kill()
        await child.wait()
    code, _, err = run(environ, tmp_path, "events", "import", str(archive))
    assert code == 0, err
    reader = KafkaLogReader(kafka, FACTS)
    ends = sum(reader.ends())
    reader.close()
    assert ends == next(int(str(row["events"])) for row in before if row["name"] == "usage")
    assert await asyncio.to_thread(hashes, empty, tmp_path) == {
        row["name"]: (row["events"], row["live_hash"]) for row in before
    }


async def test_what_would_not_be_the_same_is_refused(lab: Lab, empty: Stack, tmp_path: Path) -> None:
    """Another secret, other partitions, a torn file, an installation in use: told, and nothing is written."""
    await lab.org("acme")
    code, _, err = await lab.run("events", "export", str(tmp_path / "early.gz"))
    assert (code, "open" in err) == (5, True), err  # the server has the folder
    await lab.product.stop()
    archive = tmp_path / "books.gz"
    assert (await lab.run("events", "export", str(archive)))[0] == 0
    assert (archive.stat().st_mode & 0o777) == 0o600
    secret = (lab.data / "secret").read_text().strip()
    assert secret.encode() not in gzip.decompress(archive.read_bytes())
    assert (await lab.run("events", "export", str(archive)))[0] == 5  # no file is overwritten
    environ = empty.environment | {"TOLLHOUSE_SECRET": secret}

    code, _, err = run(environ | {"TOLLHOUSE_SECRET": NEVER_SET}, tmp_path, "events", "import", str(archive))
    assert (code, "TOLLHOUSE_SECRET" in err) == (5, True), err
    torn = tmp_path / "torn.gz"
    torn.write_bytes(archive.read_bytes()[:-100])
    code, _, err = run(environ, tmp_path, "events", "import", str(torn))
    assert (code, str(torn) in err) == (2, True), err
    lines = gzip.decompress(archive.read_bytes()).splitlines(keepends=True)
    changed = tmp_path / "changed.gz"
    changed.write_bytes(gzip.compress(b"".join([*lines[:1], *lines[2:]])))
    code, _, err = run(environ, tmp_path, "events", "import", str(changed))
    assert (code, "digest" in err) == (2, True), err
    code, _, err = run({"TOLLHOUSE_SECRET": secret}, tmp_path, "events", "import", str(archive))
    assert (code, "TOLLHOUSE_KAFKA" in err) == (2, True), err
    for topic in (CONTROL, FACTS):
        reader = KafkaLogReader(empty.environment["TOLLHOUSE_KAFKA"], topic)
        assert sum(reader.ends()) == 0
        reader.close()

    reader = KafkaLogReader(empty.environment["TOLLHOUSE_KAFKA"], FACTS)
    assert run(environ, tmp_path, "bootstrap")[0] == 0  # it is in use from now on
    code, _, err = run(environ, tmp_path, "events", "import", str(archive))
    assert (code, "not_empty" in err) == (5, True), err
    assert sum(reader.ends()) == 0
    reader.close()
