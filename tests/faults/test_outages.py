"""P2, P6, P8 in distributed mode: any process and any server is killed or stands still, again and again, under mixed load.

Afterwards the books equal the backends' own count, nothing is there twice, and every acknowledged command is in force, once.
What may be refused while something is away is `docs/operations.md`; it is asserted here.
"""

import asyncio
import contextlib
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest

from infra.stack import Stack
from tests.distributed.conftest import bootstrapped
from tests.distributed.house import SECRET, House, Installation, Process
from tests.exact import dollars
from tests.faults.test_kill import (
    Attack,
    ask,
    balances_agree,
    books,
    compare,
    prepared,
    quiet,
    reconcile,
)
from tests.http1 import Cut, Http
from tests.stack import fresh_stack
from tests.waiting import until

CALLERS = 16
TIMEOUT_SECONDS = 5.0
"""Of the backends: what a killed gateway leaves open is unconfirmed 5 s after that."""

RECOVERY = 90.0
"""Seconds, generous: a deadline bounds a hang, it measures nothing."""

SERVERS = ("redis", "postgres", "kafka-1", "kafka-2", "kafka-3")
ON_THE_WAY = {"gateway", "redis", "kafka"}
"""Without any other, requests go on."""

CLOSED = {"gate_unavailable", "log_unavailable", "not_ready"}
"""What a request is told that cannot be decided."""

MONEY = {"insufficient_quota", "budget_busy", "upstream_error"}
"""What the load itself brings about."""

LATE = {"upstream_timeout"}
"""What a gateway that stood still tells those whose backend may have answered meanwhile."""


@dataclass
class Siege:
    """The attack, the installation it goes against, and what commands were acknowledged."""

    attack: Attack
    house: House
    servers: Stack
    dice: random.Random
    moments: list[tuple[float, str]] = field(default_factory=list)
    """When each answer's request began, and its code (empty: served)."""
    commands: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    """Commands that were refused, by status and code."""
    told: list[str] = field(default_factory=list)
    """One line of each round."""
    tasks: "list[asyncio.Task[None]]" = field(default_factory=list)

    async def callers_through(self) -> None:
        """Ends the load: what is under way is finished. Raises what ended a caller."""
        self.attack.over.set()
        await asyncio.gather(*self.tasks)

    async def caller(self, number: int, gateway: Process) -> None:
        dice = random.Random(number)
        async with Http(gateway.url) as http:
            while not self.attack.over.is_set():
                model = "tight" if number % 4 == 0 else dice.choice(("steady", "steady", "flaky"))
                began = time.monotonic()
                try:
                    answer = await ask(self.attack, http, model, dice)
                except Cut:
                    self.attack.seen.cut += 1
                    await asyncio.sleep(0.05)
                    continue
                self.attack.seen.add(model, answer)
                self.moments.append((began, answer.code or ""))
                if answer.status != 200:  # they are told to wait a second; these are a little less patient
                    await asyncio.sleep(0.3 if answer.status == 503 else 0.02)

    async def commander(self) -> None:
        """One adjustment after the other, each under a key of its own until it is acknowledged, so that it must count once."""
        for number in itertools.count():
            if self.attack.over.is_set():
                return
            body = {"amount_usd": "0.000000001", "reason": f"number {number}"}
            await self.acknowledged("POST", "/orgs/acme/budgets/cap/adjust", body, f"adjust-{number}")
            self.attack.limits["acme", "cap"] += 1
            self.commands += 1
            await asyncio.sleep(0.02)

    async def acknowledged(self, method: str, path: str, body: object, key: str) -> None:
        """A command, repeated under its key until it is carried out."""
        deadline = time.monotonic() + RECOVERY
        while True:
            try:
                answer = await self.house.command(method, path, body, idempotency_key=key)
                if answer.status < 300:
                    return
                why = f"{answer.status} {answer.code}"
            except Cut as cut:
                why = f"cut: {cut}"
            self.refusals[why.partition(":")[0]] += 1
            assert time.monotonic() < deadline, f"{method} {path} is not carried out: {why}"
            await asyncio.sleep(0.1)

    def last_words(self) -> str:
        """What a reader of a failed run wants to know."""
        logs = [f"--- {name}\n{process.child.log.read_text()[-3000:]}" for name, process in self.processes().items()]
        return "\n".join([*self.told, f"refused commands: {dict(self.refusals)}", *logs])

    # -- what is done to it

    def targets(self) -> list[str]:
        return [*self.processes(), *SERVERS]

    def processes(self) -> dict[str, Process]:
        house = self.house
        named = {
            "gateway": house.gateways,
            "control": house.controls,
            "worker": house.others[:2],
            "read": house.others[2:],
        }
        return {f"{kind}-{n}": process for kind, found in named.items() for n, process in enumerate(found, 1)}

    async def strike(self, target: str, manner: str, seconds: float) -> None:
        """Takes `target` away for `seconds`, and gives it back."""
        began = time.monotonic()
        await self.take_away(target, manner)
        away = time.monotonic()
        await asyncio.sleep(seconds)
        back = time.monotonic()
        await self.give_back(target, manner)
        await self.recovered(f"{target} {manner}")
        self.told.append(f"{target} {manner} {seconds:.1f} s: served again after {time.monotonic() - back:.1f} s")
        self.as_written(target, [(at, code) for at, code in self.moments if at >= began], away, back)

    async def take_away(self, target: str, manner: str) -> None:
        process = self.processes().get(target)
        if process is None:
            await asyncio.to_thread(self.servers.kill if manner == "kill" else self.servers.pause, target)
        elif manner == "kill":
            await process.child.kill()
        else:
            process.child.signal(signal.SIGSTOP)

    async def give_back(self, target: str, manner: str) -> None:
        process = self.processes().get(target)
        if process is None:
            await asyncio.to_thread(self.servers.start if manner == "kill" else self.servers.resume, target)
        elif manner == "kill":
            await process.start()
        else:
            process.child.signal(signal.SIGCONT)

    async def recovered(self, what: str) -> None:
        """Requests are served and commands carried out again, without anybody's help."""
        served, commands = len(self.attack.seen.served) + 40, self.commands + 3
        await until(lambda: len(self.attack.seen.served) >= served, f"requests served after {what}", RECOVERY)
        await until(lambda: self.commands >= commands, f"commands carried out after {what}", RECOVERY)

    def as_written(self, target: str, moments: list[tuple[float, str]], away: float, back: float) -> None:
        """Only what `docs/operations.md` says happens while something is away."""
        codes = {code for _, code in moments if code}
        assert codes <= CLOSED | MONEY | LATE, f"{target} away: {codes}"
        kind = target.partition("-")[0]
        meanwhile = [code for at, code in moments if away + 1.0 < at < back - 0.2]
        if kind == "redis":
            assert not [code for code in meanwhile if not code], "served without a gate"
        elif kind not in ON_THE_WAY and back - away > 2.0:
            assert "" in meanwhile, f"nothing was served without {target}: {Counter(meanwhile)}"


@contextlib.asynccontextmanager
async def siege(servers: Stack, dice: random.Random) -> AsyncIterator[Siege]:
    """Two gateways, two workers, one control and one read process under load."""
    environ = servers.environment | {"TOLLHOUSE_SECRET": SECRET}
    lines = await asyncio.to_thread(bootstrapped, environ, servers.folder)
    async with House(Installation(environ, lines.splitlines()[-1].removeprefix("admin key "))) as house:
        house.others += [house.make("worker"), house.make("worker"), house.make("read")]
        await house.begin(gateways=2, gatekeepers=0)
        house.environ |= {"TOLLHOUSE_URL": house.controls[0].url, "TOLLHOUSE_ADMIN_KEY": house.admin_key}
        made = Siege(await prepared(house, TIMEOUT_SECONDS), house, servers, dice)
        made.tasks = [asyncio.create_task(made.caller(n, house.gateways[n % 2])) for n in range(CALLERS)]
        made.tasks.append(asyncio.create_task(made.commander()))
        try:
            await made.recovered("the start")
            yield made
        except BaseException:
            print(made.last_words())
            raise
        finally:
            for task in made.tasks:
                task.cancel()
            await asyncio.gather(*made.tasks, return_exceptions=True)


async def strike_and_compare(servers: Stack, rounds: int, longest: float) -> None:
    seed = random.randrange(1 << 30)
    print(f"\nP2, P6, P8: seed {seed}")
    dice = random.Random(seed)
    async with siege(servers, dice) as made:
        for number, (target, manner) in enumerate(itertools.islice(_order(made.targets(), dice), rounds), 1):
            await made.strike(target, manner, dice.uniform(0.5, 3.0) if manner == "kill" else longest)
            limits = made.attack.limits
            limits["small", "cap"] += 100_000_000
            raised = {"limit_usd": dollars(limits["small", "cap"]).removeprefix("$")}
            await made.acknowledged("PATCH", "/orgs/small/budgets/cap", raised, f"raise-{number}")
        await made.callers_through()
        attack = made.attack
        await quiet(attack)
        rows = await books(attack)
        outcomes = Counter(row.outcome for row in rows.values())
        print(
            f"{rounds} rounds: {len(attack.journal())} served, {attack.seen.answers} whole answers, {attack.seen.cut} cut; "
            f"rows {dict(outcomes)}; {made.commands} commands acknowledged, refused meanwhile {dict(made.refusals)}"
        )
        print("\n".join(made.told))
        compare(attack, rows)
        await balances_agree(attack, rows)
        await reconcile(attack)


def _order(targets: list[str], dice: random.Random) -> Iterator[tuple[str, str]]:
    """Every target killed and stopped, in any order, again and again."""
    while True:
        every = list(itertools.product(targets, ("kill", "pause")))
        dice.shuffle(every)
        yield from every


@pytest.fixture(scope="module")
def servers() -> Iterator[Stack]:
    with fresh_stack(brokers=3) as stack:
        yield stack


async def test_five_outages_lose_nothing_and_bill_nothing_twice(servers: Stack) -> None:
    """Whatever is away, and however: only what is written may be refused, and the books are exact afterwards."""
    await strike_and_compare(servers, 5, 3.0)


@pytest.mark.full
async def test_fifty_outages_lose_nothing_and_bill_nothing_twice() -> None:
    """The same fifty times, with everything standing still for ten seconds."""
    with fresh_stack(brokers=3) as stack:
        await strike_and_compare(stack, 50, 10.0)
