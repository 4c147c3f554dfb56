"""The gate on a real Redis: two gateways on one, servers that die, come back old, are promoted, hang, or are a cluster."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from redis.crc import key_slot

from commands.gate import AdmitRequest, BudgetClaim, Granted, Refused, Settled
from domain.errors import Conflict, GateUnavailable
from domain.fold import Attempt, Books, Bucket, State
from infra.adapters import redis_gate
from infra.adapters.redis_gate import RedisGate
from infra.adapters.redis_gate_codec import MAX
from infra.adapters.redis_nodes import tag
from infra.stack.ports import HOST
from tests.redis_server import RedisServer, redis_server
from tests.waiting import eventually, until

ORG, LIMIT, COST = "acme", 5_000, 10
PATIENT = 10.0
"""Seconds for a reply where a test is not about replies that do not come."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as made:
        yield made


@pytest_asyncio.fixture
async def gates() -> AsyncIterator["Gates"]:
    async with AsyncExitStack() as ends:
        yield Gates(ends)


class Gates:
    """Makes gates, and ends them with the test."""

    def __init__(self, ends: AsyncExitStack) -> None:
        self._ends = ends

    def to(self, server: RedisServer, partitions: int = 1, timeout: float = PATIENT) -> RedisGate:
        gate = RedisGate(server.url, partitions, timeout=timeout)
        self._ends.push_async_callback(gate.close)
        return gate

    async def opened(self, server: RedisServer, partitions: int = 1, timeout: float = PATIENT) -> RedisGate:
        """A gate with nothing on its books, open in epoch 0."""
        gate = self.to(server, partitions, timeout)
        for partition in range(partitions):
            await open_(gate, 0, partition)
        return gate


async def open_(gate: RedisGate, epoch: int, partition: int = 0, books: Books | None = None) -> str:
    """The run it was opened for."""
    run = await gate.run()
    await gate.begin(partition, run, epoch)
    await gate.finish(partition, run, epoch, 0, books or Books())
    return run


def asked(run: str, attempt: str, epoch: int = 0, partition: int = 0, **other: Any) -> AdmitRequest:
    """An admission of `COST` under one hard budget of `LIMIT`."""
    claim = BudgetClaim("cap", ("1.lifetime",), None, LIMIT, 1, True)
    plain = {"once": None, "base": COST, "unit": 0, "want": 1, "least": 1, "budgets": (claim,)}
    now = datetime.now(UTC)
    return AdmitRequest(
        partition=partition, run=run, epoch=epoch, org=ORG, attempt=attempt, accounted_at=now, **(plain | other)
    )


async def seen(gate: RedisGate, run: str, epoch: int = 0) -> tuple[int, int]:
    """(consumed, held) of the budget, as a request that can only be refused is told."""
    answer = await gate.admit(asked(run, "probe", epoch, base=MAX))
    assert answer.seen, answer
    return answer.seen[0].consumed, answer.seen[0].held


def closed(answer: Granted | Refused) -> bool:
    return isinstance(answer, Refused) and answer.code == "gate_unavailable"


async def test_two_gateways_never_exceed_a_budget(server: RedisServer, gates: Gates) -> None:
    """1,000 admissions at once through two gates on a budget that pays for 500: 500 are granted, the rest are told to wait."""
    one, two = await gates.opened(server), gates.to(server)
    run = await one.run()
    answers = await asyncio.gather(
        *((one, two)[number % 2].admit(asked(run, f"req_{number}")) for number in range(1000))
    )
    granted = [answer for answer in answers if isinstance(answer, Granted)]
    assert len(granted) == LIMIT // COST
    assert {answer.code for answer in answers if isinstance(answer, Refused)} == {"budget_busy"}
    assert sorted(answer.seen[0].held for answer in granted) == list(range(0, LIMIT, COST))
    assert await seen(two, run) == (0, LIMIT)


async def test_the_calls_of_a_tick_are_one_round_trip(server: RedisServer, gates: Gates) -> None:
    """A hundred calls made in one tick reach the server in a few reads, not in a hundred."""
    gate = await gates.opened(server)
    run = await gate.run()
    before = int(server.info("total_reads_processed"))
    await asyncio.gather(*(gate.admit(asked(run, f"req_{number}")) for number in range(100)))
    assert int(server.info("total_reads_processed")) - before < 50


async def test_a_capture_leaves_with_the_next_calls(server: RedisServer, gates: Gates) -> None:
    """The room a capture frees is there for whoever asks afterwards."""
    gate = await gates.opened(server)
    run = await gate.run()
    await gate.admit(asked(run, "req_1"))
    gate.capture(0, "req_1", 3)
    assert await seen(gate, run) == (0, 3)


async def test_restarted_empty_is_closed_until_opened(server: RedisServer, gates: Gates) -> None:
    """A server that was killed and came back empty admits nothing, settles nothing and lists nothing until it is opened."""
    gate, other = await gates.opened(server), gates.to(server)
    old = await gate.run()
    assert isinstance(await other.admit(asked(old, "req_1")), Granted)
    server.kill()
    assert closed(await gate.admit(asked(old, "req_2")))
    server.start()
    await lost_and_opened_again(gate, other, old)


async def test_restarted_from_an_old_snapshot_is_closed(server: RedisServer, gates: Gates) -> None:
    """A server that came back with what it once saved is not the gate that went on after that."""
    gate, other = await gates.opened(server), gates.to(server)
    old = await gate.run()
    await gate.admit(asked(old, "req_1"))
    server.ask("SAVE")
    await gate.admit(asked(old, "req_2"))
    server.kill()
    server.start()
    assert server.ask("HGET", f"{tag(0)}:state", "opened") == b"1"
    await lost_and_opened_again(gate, other, old)


async def test_a_promoted_replica_is_closed(server: RedisServer, gates: Gates) -> None:
    """A replica has all that its primary wrote before it was cut off, and is closed when it takes over."""
    gate = await gates.opened(server)
    old = await gate.run()
    await gate.admit(asked(old, "req_1"))
    with redis_server() as replica:
        replica.ask("REPLICAOF", HOST, server.port)
        await until(lambda: bool(replica.ask("EXISTS", f"{tag(0)}:holds")), "the replica follows")
        heir, other = gates.to(replica), gates.to(replica)
        assert closed(await heir.admit(asked(old, "req_2")))
        with pytest.raises(GateUnavailable):
            await heir.begin(0, await heir.run(), 1)
        server.kill()
        replica.ask("REPLICAOF", "NO", "ONE")
        await lost_and_opened_again(heir, other, old)


async def lost_and_opened_again(gate: RedisGate, other: RedisGate, old: str) -> None:
    """It is closed for everything, and serves both gateways again once it was opened."""
    run = await eventually(lambda: answering(gate), bool)
    assert run
    assert run != old
    for each in (gate, other):
        assert closed(await each.admit(asked(old, "req_3")))
        assert closed(await each.admit(asked(run, "req_3")))
        assert not await each.expired(datetime.now(UTC) + timedelta(minutes=1))
        assert await each.watermark(0) is None
        assert not await each.settle(0, old, 0, 0, [Settled("RequestAdmitted", "req_1")])
    with pytest.raises(GateUnavailable):
        await gate.begin(0, old, 1)
    await gate.begin(0, run, 1)
    assert closed(await gate.admit(asked(run, "req_3", 1)))
    await gate.finish(0, run, 1, 7, Books())
    for each in (gate, other):
        assert isinstance(await each.admit(asked(run, "req_4", 1)), Granted)
        assert closed(await each.admit(asked(old, "req_5", 0)))
        assert await each.watermark(0) == 7
    assert await seen(gate, run, 1) == (0, COST)


async def answering(gate: RedisGate) -> str:
    try:
        return await gate.run()
    except GateUnavailable:
        return ""


async def test_a_server_that_hangs_is_unavailable_and_comes_back(server: RedisServer, gates: Gates) -> None:
    """Replies that do not come refuse admissions and fail the rest; once it answers, it is the same gate."""
    gate = await gates.opened(server, timeout=0.5)
    run = await gate.run()
    server.signal(signal.SIGSTOP)
    try:
        assert closed(await gate.admit(asked(run, "req_1")))
        gate.capture(0, "req_1", 1)
        for call in (gate.run(), gate.watermark(0), gate.expired(datetime.now(UTC)), gate.begin(0, run, 1)):
            with pytest.raises(GateUnavailable):
                await call
        with pytest.raises(GateUnavailable):
            await gate.settle(0, run, 0, 0, [])
        with pytest.raises(GateUnavailable):
            await gate.finish(0, run, 0, 0, Books())
    finally:
        server.signal(signal.SIGCONT)
    assert await eventually(lambda: answering(gate), bool) == run


async def test_a_server_that_may_evict_is_refused(gates: Gates) -> None:
    """What is absent must never have been there: with any other policy than noeviction there is no gate."""
    with redis_server("--maxmemory-policy", "allkeys-lru") as server:
        gate = gates.to(server)
        with pytest.raises(GateUnavailable, match="noeviction"):
            await gate.run()
        assert closed(await gate.admit(asked("", "req_1")))
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await open_(gate, 0)
        server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
        with pytest.raises(GateUnavailable, match="noeviction"):
            await gate.run()


async def test_full_memory_refuses_admissions_and_lets_holds_end(server: RedisServer, gates: Gates) -> None:
    """A server without memory admits nothing and loses nothing; settling goes on, because it is what frees memory."""
    gate = await gates.opened(server)
    run = await gate.run()
    await gate.admit(asked(run, "req_1"))
    server.ask("CONFIG", "SET", "maxmemory", "1")
    assert closed(await gate.admit(asked(run, "req_2")))
    ends = [Settled("RequestAdmitted", "req_1"), Settled("RequestCompleted", "req_1", 4)]
    for offset, fact in enumerate([Settled("RequestDenied"), *ends]):
        assert await gate.settle(0, run, 0, offset, [fact])
    server.ask("CONFIG", "SET", "maxmemory", "0")
    assert await seen(gate, run) == (4, 0)


async def test_forgotten_scripts_are_sent_again(server: RedisServer, gates: Gates) -> None:
    """A server that was made to forget its scripts is told them again by the next calls, in one tick or many."""
    gate = await gates.opened(server)
    run = await gate.run()
    server.ask("SCRIPT", "FLUSH")
    answers = await asyncio.gather(*(gate.admit(asked(run, f"req_{number}")) for number in range(20)))
    assert all(isinstance(answer, Granted) for answer in answers)


async def test_nothing_ever_expires(server: RedisServer, gates: Gates) -> None:
    """No key has a time to live, and all keys of a partition are in one slot."""
    gate = await gates.opened(server, 2)
    run = await gate.run()
    for partition in range(2):
        await gate.admit(asked(run, f"req_{partition}", partition=partition, once=f"once_{partition}"))
    keys = server.ask("KEYS", "*")
    assert keys
    for key in keys:
        assert server.ask("TTL", key) == -1
        assert key_slot(key) in {key_slot(tag(each).encode()) for each in range(2)}


async def test_a_clock_that_is_off_the_servers_is_refused(server: RedisServer, gates: Gates) -> None:
    """The gate goes by its server's clock: an admission accounted two minutes off it, either way, is refused."""
    gate = await gates.opened(server)
    run = await gate.run()
    for minutes in (-2, 2):
        late = asked(run, "req_1")
        moved = AdmitRequest(
            **{name: getattr(late, name) for name in AdmitRequest.__struct_fields__}
            | {"accounted_at": late.accounted_at + timedelta(minutes=minutes)}
        )
        assert closed(await gate.admit(moved))
    assert isinstance(await gate.admit(asked(run, "req_1")), Granted)


async def test_books_are_loaded_in_pieces_and_opened_last(
    server: RedisServer, gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Books of many pieces are all there once it is open, and it is closed while they are loaded."""
    monkeypatch.setattr(redis_gate, "LOAD", 7)
    gate, books, now = gates.to(server), Books(), datetime.now(UTC)
    key = (ORG, "cap", "1.lifetime")
    books.buckets[key] = Bucket(100, 30 * COST, 0)
    for number in range(30):
        books.attempts[f"req_{number}"] = Attempt(State.OPEN, now, COST, (key,))
        books.once[f"once_{number}"] = (f"req_{number}", now)
        books.buckets[(ORG, f"other-{number}", "1.lifetime")] = Bucket(number)
    run = await gate.run()
    await gate.begin(0, run, 0)
    loading = asyncio.create_task(gate.finish(0, run, 0, 60, books))
    answers = [await gate.admit(asked(run, "early"))]
    while not loading.done():
        assert await gate.watermark(0) in (None, 60)
        answers.append(await gate.admit(asked(run, "early", base=MAX)))
    await loading
    assert closed(answers[0])
    assert await seen(gate, run) == (100, 30 * COST)
    again = await gate.admit(asked(run, "new", once="once_29"))
    assert isinstance(again, Refused)
    assert (again.code, again.first, again.outcome) == ("duplicate_request", "req_29", "open")
    with pytest.raises(Conflict):
        await gate.finish(0, run, 0, 61, books)


async def test_facts_are_settled_in_steps(server: RedisServer, gates: Gates, monkeypatch: pytest.MonkeyPatch) -> None:
    """More facts than one step takes are all settled, and the watermark is behind the last; those it ignores count too."""
    monkeypatch.setattr(redis_gate, "SETTLE", 3)
    gate = await gates.opened(server)
    run = await gate.run()
    facts = []
    for number in range(10):
        await gate.admit(asked(run, f"req_{number}"))
        facts += [
            Settled("RequestAdmitted", f"req_{number}"),
            Settled("RequestDenied"),
            Settled("RequestCompleted", f"req_{number}", 2),
        ]
    assert await gate.settle(0, run, 0, 0, facts[:4])
    assert not await gate.settle(0, run, 0, 0, facts)
    assert await gate.settle(0, run, 0, 4, facts[4:])
    assert await gate.watermark(0) == 30
    assert await seen(gate, run) == (20, 0)


async def test_more_budgets_in_scope_are_no_more_calls_of_the_server(server: RedisServer, gates: Gates) -> None:
    """Redis answers nobody else while a script runs: admitting, capturing and settling look at all budgets at once, and a look at
    one is no walk through the others."""
    server.ask("FLUSHALL")
    gate = gates.to(server)
    run = await open_(gate, 0)
    assert await gate.settle(0, run, 0, 0, [])  # forgets what is over, now and not in a minute
    figures, sums = list[int](), ("hget", "hmget", "hset", "hincrby")
    assert server.ask("OBJECT", "ENCODING", f"{tag(0)}:budgets") == b"hashtable"
    for watermark, number in ((0, 3), (4, 300)):
        claims = tuple(BudgetClaim(f"cap-{each}", ("1.lifetime",), None, 10**9, 1, True) for each in range(number))
        assert isinstance(await gate.admit(asked(run, f"first-{number}", budgets=claims)), Granted)
        before = server.calls(*sums)  # the limits are known
        for attempt in "ab":
            assert isinstance(await gate.admit(asked(run, f"{attempt}-{number}", budgets=claims)), Granted)
        gate.capture(0, f"a-{number}", 1)
        facts = [
            Settled(f"Request{what}", f"{each}-{number}", 1) for what in ("Admitted", "Completed") for each in "ab"
        ]
        assert await gate.settle(0, run, 0, watermark, facts)
        figures.append(server.calls(*sums) - before)
    assert figures[0] == figures[1]


async def test_sums_of_soft_budgets_saturate(server: RedisServer, gates: Gates) -> None:
    """Holds whose sum no double is exact for are counted as much as one, and ending them leaves exactly the rest."""
    gate = await gates.opened(server)
    run = await gate.run()
    soft = (BudgetClaim("cap", ("1.lifetime",), None, LIMIT, 1, False),)
    for number in range(3):
        assert isinstance(await gate.admit(asked(run, f"req_{number}", base=MAX - 1, budgets=soft)), Granted)
    assert await seen(gate, run) == (0, MAX)
    for number in range(2):
        gate.capture(0, f"req_{number}", 7)
    assert await seen(gate, run) == (0, MAX)
    gate.capture(0, "req_2", 123456789012345)
    assert await seen(gate, run) == (0, 123456789012359)


def whole(node: RedisServer) -> bool:
    return len(node.ask("CLUSTER", "SLOTS")) == 2 and "cluster_state:ok" in str(node.ask("CLUSTER", "INFO"))


async def test_a_cluster_has_partitions_on_different_nodes(gates: Gates) -> None:
    """Partitions are where the cluster has their slots; when one node is lost the gate is, and it can be opened again."""
    flags = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    with ExitStack() as ends:
        nodes = [ends.enter_context(redis_server(*flags)) for _ in range(2)]
        nodes[0].ask("CLUSTER", "ADDSLOTS", *range(8192))
        nodes[1].ask("CLUSTER", "ADDSLOTS", *range(8192, 16384))
        nodes[0].ask("CLUSTER", "MEET", HOST, nodes[1].port)
        for node in nodes:
            await until(partial(whole, node), "the nodes know each other")
        gate = await gates.opened(nodes[0], 4)
        run = await gate.run()
        assert all(node.info("run_id") in run for node in nodes)
        for partition in range(4):
            answer = await gate.admit(asked(run, f"req_{partition}", partition=partition))
            assert isinstance(answer, Granted)
        assert all(node.ask("DBSIZE") for node in nodes)
        nodes[1].kill()
        nodes[1].start()
        for node in nodes:
            await until(partial(whole, node), "the nodes know each other again")
        again = await eventually(lambda: answering(gate), lambda found: found not in ("", run))
        assert again not in ("", run)
        answers = [await gate.admit(asked(run, "req_9", partition=each)) for each in range(4)]
        assert any(closed(answer) for answer in answers)
        for partition in range(4):
            await open_(gate, 1, partition)
            assert isinstance(await gate.admit(asked(again, "req_10", 1, partition)), Granted)
