"""The local stack starts real servers, brings back what died on the same ports and data, and leaves no process behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import clickhouse_connect
import confluent_kafka
import psycopg
import pytest
import redis
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, PartitionMetadata

from domain.errors import Conflict, NotFound, Unavailable
from infra.stack import Stack
from infra.stack.ports import HOST, free
from infra.stack.process import Process, spawn
from infra.stack.server import parts
from infra.stack.state import load, save
from tests.stack import fresh_stack

SECONDS = 30.0
OTHER_ADDRESS = "127.0.0.2"
NAMES = ["kafka-1", "postgres", "redis", "clickhouse"]


@pytest.fixture(scope="module")
def own() -> Iterator[Stack]:
    """A stack that only these tests use, and may stop."""
    with fresh_stack() as made:
        yield made


@pytest.fixture
def stack(own: Stack) -> Stack:
    """It is up when a test begins."""
    own.up()
    return own


def create_topic(stack: Stack, name: str) -> PartitionMetadata:
    """A topic of one partition with as many copies as there are brokers. Returns once a broker knows its leader."""
    copies = sum(each.startswith("kafka") for each in stack.names)
    admin = AdminClient({"bootstrap.servers": stack.urls["kafka"]})
    admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=copies)])[name].result(SECONDS)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        partition = admin.list_topics(name, timeout=SECONDS).topics[name].partitions.get(0)
        if partition is not None and partition.leader > 0:
            return partition
        time.sleep(0.05)
    raise AssertionError(f"topic {name} has no leader")


def produce(stack: Stack, topic: str, *values: str) -> None:
    """Returns once all are acknowledged."""
    failed: list[object] = []
    producer = confluent_kafka.Producer({"bootstrap.servers": stack.urls["kafka"], "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(SECONDS) == 0
    assert failed == []


def consume(stack: Stack, topic: str, count: int) -> list[str]:
    """The first `count` values, or those that came in time."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": stack.urls["kafka"], "group.id": topic})
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    try:
        return [(message.value() or b"").decode() for message in consumer.consume(count, SECONDS)]
    finally:
        consumer.close()


def rows(stack: Stack) -> list[tuple[int]]:
    """What both databases have."""
    with psycopg.connect(stack.urls["postgres"]) as connection:
        found = connection.execute("SELECT n FROM kept ORDER BY n").fetchall()
    with clickhouse(stack) as client:
        assert [tuple(row) for row in client.query("SELECT n FROM kept ORDER BY n").result_rows] == found
    return found


def insert(stack: Stack, n: int) -> None:
    """A row in PostgreSQL, and one in ClickHouse."""
    with psycopg.connect(stack.urls["postgres"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        connection.execute("INSERT INTO kept VALUES (%s)", (n,))
    with clickhouse(stack) as client:
        client.command("CREATE TABLE IF NOT EXISTS kept (n Int32) ENGINE = MergeTree ORDER BY n")
        client.insert("kept", [[n]], column_names=["n"])


@contextmanager
def clickhouse(stack: Stack) -> Iterator[Client]:
    """ClickHouse's own client."""
    client = clickhouse_connect.get_client(dsn=stack.urls["clickhouse"])
    yield client
    client.close()


def pids(stack: Stack) -> dict[str, int | None]:
    return {each.name: each.pid for each in stack.status()}


def states(stack: Stack) -> dict[str, str]:
    return {each.name: each.state for each in stack.status()}


def ports(stack: Stack) -> list[int]:
    state = load(stack.folder)
    assert state is not None
    return [port for each in state.servers.values() for port in each.ports]


def answers(address: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((address, port)) == 0


def started(stack: Stack, name: str) -> Process:
    """The process of a server, dead or alive."""
    state = load(stack.folder)
    assert state is not None
    process = state.servers[name].process
    assert process is not None
    return process


def tollhouse(*words: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", "stack", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False)


def test_every_server_answers_its_own_client(stack: Stack) -> None:
    """A record, a row and a value are written and read back; all listen on the loopback interface only."""
    create_topic(stack, "answers")
    produce(stack, "answers", "a", "b")
    assert consume(stack, "answers", 2) == ["a", "b"]
    insert(stack, 0)
    assert (0,) in rows(stack)
    with redis.Redis.from_url(stack.urls["redis"]) as client:
        client.set("k", "v")
        assert client.get("k") == b"v"
    assert [port for port in ports(stack) if answers(OTHER_ADDRESS, port)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_server_comes_back_on_its_port_with_its_data(stack: Stack, name: str) -> None:
    """After kill -9, `up` starts that server alone; what Kafka, PostgreSQL and ClickHouse had acknowledged is there."""
    topic, n = f"killed-{name}", 100 + NAMES.index(name)
    create_topic(stack, topic)
    produce(stack, topic, "kept")
    insert(stack, n)
    before, urls = pids(stack), stack.urls
    stack.kill(name)
    assert states(stack) == {**dict.fromkeys(NAMES, "ready"), name: "stopped"}
    stack.up()
    after = pids(stack)
    assert states(stack) == dict.fromkeys(NAMES, "ready")
    assert [each for each in NAMES if before[each] != after[each]] == [name]
    assert stack.urls == urls
    assert consume(stack, topic, 1) == ["kept"]
    assert (n,) in rows(stack)


def test_all_killed_at_once_come_back(stack: Stack) -> None:
    """One `up` brings back all of them."""
    insert(stack, 200)
    for name in NAMES:
        stack.kill(name)
    stack.up()
    assert states(stack) == dict.fromkeys(NAMES, "ready")
    assert (200,) in rows(stack)


def test_children_of_a_killed_server_are_not_left(stack: Stack) -> None:
    """Backends that outlived their PostgreSQL are ended before it starts again: two would share one folder."""
    stack.pause("postgres")
    server, _ = stack._started("postgres")
    stack.kill("postgres")
    orphans = parts(server)
    assert orphans
    stack.up()
    assert [orphan for orphan in orphans if orphan.alive] == []
    assert states(stack)["postgres"] == "ready"


def test_a_stop_leaves_no_process_and_keeps_ports_and_data(stack: Stack) -> None:
    """After `down` nothing runs and every port is free; the next `up` has the same ports and data."""
    create_topic(stack, "stopped")
    produce(stack, "stopped", "kept")
    insert(stack, 300)
    urls = stack.urls
    processes = [started(stack, name) for name in NAMES]
    of_postgres = parts(stack._started("postgres")[0])
    stack.down()
    assert [process for process in [*processes, *of_postgres] if process.alive] == []
    assert all(map(free, ports(stack)))
    assert states(stack) == dict.fromkeys(NAMES, "stopped")
    stack.up()
    assert stack.urls == urls
    assert consume(stack, "stopped", 1) == ["kept"]
    assert (300,) in rows(stack)


def test_one_server_is_stopped_and_started_alone(stack: Stack) -> None:
    """The others go on under their ids."""
    before = pids(stack)
    stack.stop("redis")
    assert states(stack) == {**dict.fromkeys(NAMES, "ready"), "redis": "stopped"}
    stack.start("redis")
    after = pids(stack)
    assert [name for name in NAMES if before[name] != after[name]] == ["redis"]


def test_a_paused_server_is_seen_and_can_be_stopped(stack: Stack) -> None:
    """`status` says paused, `resume` makes it ready again, and `down` ends one that is paused."""
    stack.pause("postgres")
    assert states(stack)["postgres"] == "paused"
    stack.resume("postgres")
    assert states(stack)["postgres"] == "ready"
    stack.pause("kafka-1")
    process = started(stack, "kafka-1")
    stack.down()
    assert not process.alive


def test_another_process_with_a_remembered_id_is_left_alone(stack: Stack, tmp_path: Path) -> None:
    """An id that was given away again is no server: `down` does not touch it."""
    stack.down()
    innocent = spawn(["/bin/sleep", "600"], tmp_path / "log")
    try:
        state = load(stack.folder)
        assert state is not None
        state.servers["redis"].process = Process(innocent.pid, "an-earlier-boot/1")
        save(stack.folder, state)
        assert states(stack)["redis"] == "stopped"
        with pytest.raises(NotFound):
            stack.kill("redis")
        stack.down()
        assert innocent.alive
    finally:
        innocent.signal(signal.SIGKILL)
        assert innocent.ended(SECONDS)


def test_a_port_that_was_taken_meanwhile_is_named(stack: Stack) -> None:
    """`up` says whose port it is, and works again once it is free."""
    stack.stop("redis")
    port = int(stack.urls["redis"].rpartition(":")[2].split("/")[0])
    with socket.create_server((HOST, port)), pytest.raises(Unavailable, match=rf"port {port} of redis is held"):
        stack.up()
    stack.up()
    assert states(stack)["redis"] == "ready"


def test_two_starts_at_once_start_everything_once(stack: Stack) -> None:
    """Both return when all is ready, with the same processes."""
    stack.down()
    command = [sys.executable, "-m", "cli.main", "stack", "up", "--dir", str(stack.folder), "-o", "json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [json.loads(child.communicate(timeout=120)[0]) for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert said[0] == said[1]
    assert {each["state"] for each in said[0]["data"]} == {"ready"}


def test_the_command_line_says_where_everything_is(stack: Stack) -> None:
    """`status -o json`: a row per server, and the settings that lead to them."""
    said = json.loads(tollhouse("status", "--dir", str(stack.folder), "-o", "json").stdout)
    assert said["environment"] == stack.environment
    assert list(said["environment"]) == [f"TOLLHOUSE_{name}" for name in ("KAFKA", "POSTGRES", "REDIS", "CLICKHOUSE")]
    assert {each["name"]: each["pid"] for each in said["data"]} == pids(stack)


def test_the_command_line_stops_it_twice(stack: Stack) -> None:
    """`down` exits 0, also where nothing runs; `status` then says stopped."""
    for _ in range(2):
        assert tollhouse("down", "--dir", str(stack.folder)).returncode == 0
    said = tollhouse("status", "--dir", str(stack.folder)).stdout
    assert said.count("stopped") == len(NAMES)


def test_where_no_stack_is_status_says_how_to_start_one(tmp_path: Path) -> None:
    """Exit 3 and the command; the folder is not made."""
    ran = tollhouse("status", "--dir", str(tmp_path / "none"))
    assert ran.returncode == 3
    assert "tollhouse stack up" in ran.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("present", "missing", "install"), [([], "Java", "openjdk"), (["java"], "Maven", "maven")])
def test_what_is_missing_is_named_with_what_installs_it(
    tmp_path: Path, present: list[str], missing: str, install: str
) -> None:
    """One line, exit 1, nothing started."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in present:
        (programs / name).symlink_to("/bin/true")
    where = ("--dir", str(tmp_path / "stack"), "--cache", str(tmp_path / "cache"))
    ran = tollhouse("up", *where, path=str(programs))
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert f"{missing} is missing: apt-get install {install}" in line
    assert states(Stack(tmp_path / "stack")) == dict.fromkeys(NAMES, "stopped")


def test_the_number_of_brokers_of_a_folder_does_not_change(stack: Stack) -> None:
    """Another number is refused; none given is the one it has."""
    with pytest.raises(Conflict, match="1 broker"):
        Stack(stack.folder, 3).up()
    Stack(stack.folder).up()


def test_three_brokers_go_on_without_one() -> None:
    """Topics have three copies and need two; a record is acknowledged while one broker is dead, and none is lost."""
    with fresh_stack(brokers=3) as three:
        partition = create_topic(three, "copied")
        assert len(partition.replicas) == 3
        produce(three, "copied", "before")
        admin = AdminClient({"bootstrap.servers": three.urls["kafka"]})
        resource = ConfigResource(ConfigResource.Type.TOPIC, "copied")
        assert admin.describe_configs([resource])[resource].result(SECONDS)["min.insync.replicas"].value == "2"
        three.kill(f"kafka-{partition.leader}")
        produce(three, "copied", "without one")
        three.up()
        assert set(states(three).values()) == {"ready"}
        produce(three, "copied", "after")
        assert consume(three, "copied", 3) == ["before", "without one", "after"]


def test_a_folder_that_is_older_than_clickhouse_gets_it(stack: Stack) -> None:
    """`up` gives it a port and starts it; the other servers keep theirs."""
    stack.down()
    state = load(stack.folder)
    assert state is not None
    del state.servers["clickhouse"]
    save(stack.folder, state)
    assert list(states(stack)) == NAMES[:-1]
    stack.up()
    assert states(stack) == dict.fromkeys(NAMES, "ready")


def test_clickhouse_asks_for_its_password(stack: Stack) -> None:
    """Another one is refused by the code that ClickHouse has for it."""
    wrong = stack.urls["clickhouse"].replace("tollhouse:", "tollhouse:x")
    with pytest.raises(DatabaseError) as refused:
        clickhouse_connect.get_client(dsn=wrong)
    assert refused.value.code == 516
