"""Gateways, gate, log, keeper and backends of one organization, all real but for what a test decides: what becomes of each
append, what backends do, when time passes, who dies, who is cut off, how far the views have got.

`GateWorld` moves the pieces. What must hold of them is `tests.gate_laws`.
"""

import asyncio
from collections.abc import Coroutine
from copy import deepcopy
from typing import Any, TypeVar

import pytest

from commands import admission, fact_writer, outcomes
from commands.admission import DELTA, Admission, Call
from commands.fact_writer import FactWriter
from commands.gate import AdmitRequest, BudgetClaim, Granted, Refused, Settled
from commands.keeper import Keeper
from commands.opening import Opening
from commands.outcomes import Outcomes
from commands.reconcile import Reconciliation, Served
from domain import write_off
from domain.envelope import decode
from domain.errors import TollhouseError, UpstreamFailed
from domain.facts import BudgetHold, RequestAdmitted, RequestUnconfirmed, Usage, identity_of
from domain.period import Period
from domain.registry import decode_event
from infra.adapters.memory_gate import MemoryGate
from projections.keyring import FRESH
from streams.gate_settler import GateSettler
from tests.cranked import PROCESS, Crank, CrankedLoop
from tests.factgen import MemoryLog
from tests.fakes import FlightLog, LogBalances, MemoryJournal
from tests.gate_parts import LIFETIME, MODEL, ORG, Orders, Sent, Taken, View, Wire

T = TypeVar("T")

_NEVER = 10**18
"""Nano-dollars that no budget has."""


class Process:
    """One process: its way to the log, its connection to a gate, its view; a gateway's use cases if it is one."""

    admission: Admission
    outcomes: Outcomes

    def __init__(self, name: str, world: "GateWorld") -> None:
        self.name, self._world = name, world
        self.log = FlightLog(world.topic)
        self.writer = FactWriter(self.log, world.crank.now, world.new_id)
        self.wire = Wire(world.gate, world.taken)
        self.view = View(periods=world.periods)
        self.cut_off = False
        self.connect()

    def connect(self) -> None:
        self.wire.gate = self._world.gate
        run = self._world.gate.identity
        self.admission = Admission(self.wire, self.writer, self.view, self._world.crank.now, run)
        self.outcomes = Outcomes(self.wire, self.writer, _exceeded)

    def refresh(self) -> None:
        """The view is as of now. A gateway whose gate belongs to an older epoch turns to the new one."""
        view, world = self.view, self._world
        view.as_of = world.crank.monotonic()
        if view.limits != world.limits:
            view.limits, view.version = dict(world.limits), view.version + 1
        if view.known != world.epoch():
            view.known = world.epoch()
            self.connect()


class GateWorld:
    """`embedded`: one process is gateway, keeper and settler in one, and its end is the gate's. Else two gateways share a
    gate that can be lost, or left behind, while they live."""

    def __init__(self, *, embedded: bool, second: Period = LIFETIME, limits: tuple[int, int] = (4, 3)) -> None:
        self.embedded = embedded
        self.crank = Crank()
        self.loop = CrankedLoop(self.crank)
        self.topic, self.journal, self.orders = MemoryLog(), MemoryJournal(), Orders()
        self.captured: set[str] = set()
        """What processes captured that are dead."""
        self.periods = {"cap": LIFETIME, "second": second}
        self.limits = {"cap": (limits[0], 1), "second": (limits[1], 1)}
        self.sent: list[Sent] = []
        self.holds: dict[str, Taken] = {}
        self.strays: list[tuple[int, bytes]] = []
        self.views = 1.0
        """How much of the log the balances view has taken in when it is asked."""
        self.balances = LogBalances(self.topic, lambda p: int(self.views * len(self.topic.records[p])))
        self._numbers = 0
        self._fed = 0
        self._patch = pytest.MonkeyPatch()
        for module in (admission, fact_writer, outcomes):
            self._patch.setattr(module, "time", self.crank)
        self.gate = self.replica = self._new_gate()
        self.processes: dict[str, Process] = {}
        for name in ("core",) if embedded else ("g0", "g1", "keeper", "opener"):
            self._start(name)
        self.gateways = ["core"] if embedded else ["g0", "g1"]
        self._settling()
        self.open()

    # -- requests

    def submit(self, gateway: str, key: str, bound: int, cap: int | None) -> Sent:
        """A request of `key` comes to a gateway."""
        shown = dict(self.processes[gateway].view.limits)
        sent = Sent(self.new_id("req"), gateway, self.loop.create_future(), shown=shown)
        self.sent.append(sent)
        call = Call("chat", "m", False, input_bound=bound, estimated_input=bound, cap=cap)
        self.spawn(gateway, self._exchange(self.processes[gateway], sent, key, call))
        return sent

    async def _exchange(self, gateway: Process, sent: Sent, key: str, call: Call) -> None:
        outcomes = gateway.outcomes
        try:
            admitted = await gateway.admission.admit(sent.id, gateway.view.caller(key), call, MODEL)
        except TollhouseError as error:
            sent.refused = error.code
            return
        sent.dispatched, sent.hold = True, admitted.hold
        try:
            usage = await sent.backend
        except UpstreamFailed as failure:
            if failure.sent:
                await outcomes.unconfirmed(admitted, failure, backend="fake", tries=())
            else:
                await outcomes.failed(admitted, "upstream_refused", backend="fake", tries=())
            return
        await outcomes.completed(admitted, usage, backend="fake", tries=())
        sent.answered = True

    def serve(self, sent: Sent, cost: int, *, broken: bool = False) -> None:
        """The backend serves a request, and its answer arrives whole or not."""
        sent.cost, sent.broken = cost, broken
        self._answer(sent, UpstreamFailed("cut", sent=True) if broken else Usage(output=cost))

    def spare(self, sent: Sent) -> None:
        """The backend cannot be reached."""
        sent.spared = True
        self._answer(sent, UpstreamFailed("refused", sent=False))

    def _answer(self, sent: Sent, what: Usage | UpstreamFailed) -> None:
        if not sent.backend.done():
            if isinstance(what, Usage):
                sent.backend.set_result(what)
            else:
                sent.backend.set_exception(what)
        self.loop.settle()

    # -- the log

    def busy(self) -> list[tuple[str, FlightLog]]:
        """The processes that have something in flight to the log."""
        return [(name, process.log) for name, process in self.processes.items() if process.log.flight]

    def unsettled(self) -> bool:
        """Whether there are facts that the settler was not told of."""
        return self._fed < len(self.topic.records[0])

    def arrive(self, log: FlightLog, how: str = "once") -> None:
        """What becomes of the oldest append in flight."""
        match how:
            case "once":
                log.arrive()
            case "twice":
                log.arrive(2)
            case "unacknowledged":
                log.arrive_unacknowledged()
            case "delayed":
                self.strays.append(log.fail())
            case "lost":
                log.fail()
        self.loop.settle()

    def stray(self, number: int) -> None:
        """A record that its writer gave up, or left behind when it died, arrives after all."""
        self.topic.append(*self.strays.pop(number))

    # -- time and views

    def advance(self, seconds: float) -> None:
        """Time passes; every view that is not cut off keeps up. Replicas of the gate are never more current than this."""
        if not self.embedded:
            self.replica = deepcopy(self.gate)
        self.crank.advance(seconds)
        self.loop.inside(self._refresh)
        self.loop.settle()

    def set_limit(self, budget: str, limit: int) -> None:
        self.limits[budget] = (limit, self.limits[budget][1] + 1)

    def epoch(self) -> int:
        past = self.journal.load("_/gate/0")
        return decode_event(decode(past[-1])).epoch if past else -1

    # -- who ends what nobody else ends

    def tick(self) -> None:
        """A keeper's round, by one that remembers no earlier round."""
        keeper = self._keeper
        work = Keeper(keeper.wire, keeper.writer, lambda: self.balances, self.orders, self.crank.now)
        self.spawn(keeper.name, work.tick())

    def end_early(self, attempt: str) -> None:
        """Somebody whose clock is ahead, or who is impatient, calls an attempt unconfirmed."""
        admitted = self.admission_of(attempt)
        fact = RequestUnconfirmed(**identity_of(admitted), reason="deadline")
        self.topic.append(0, self._keeper.writer.body(fact, ORG, attempt, "system"))

    def order_write_off(self, attempt: str) -> None:
        self.orders.given[attempt] = write_off.WriteOff(request=attempt, attempt=attempt, reason="agreed")

    def reconcile(self) -> None:
        """The backends' records are complete: whatever is unconfirmed and not in them is never served."""
        self.views = 1.0
        waiting = {self.balances.fact(overdue.body).attempt for overdue in self.balances.unconfirmed()}
        for sent in self.sent:
            if sent.id in waiting and sent.cost is None:
                self.spare(sent)
        record = [Served(sent.id, Usage(output=sent.cost)) for sent in self.sent if sent.cost is not None]
        keeper = self._keeper
        asked_as_it_is = Reconciliation(self.balances, keeper.writer, self.orders, ends=tuple)
        self.spawn(keeper.name, asked_as_it_is.run(record, ()))

    def settle_again(self, start: int, count: int) -> None:
        """Another settler, which is behind, settles facts from `start` on."""
        facts = [self.balances.fact(record.value) for record in self.topic.records[0][start : start + count]]
        settled = [Settled(type(f).__name__, getattr(f, "attempt", ""), getattr(f, "cost", 0)) for f in facts]
        at_once(self.gate.settle(0, self.gate.identity, self.epoch(), start, settled))

    def settle(self, count: int, *, heard: bool = True) -> None:
        """The settler hears of the next `count` facts, or never does: then it finds the gap when it hears of others."""
        bodies = [record.value for record in self.topic.records[0][self._fed : self._fed + count]]
        if heard:
            self.settler.committed(0, self._fed, bodies)
        self._fed += len(bodies)
        self.loop.settle()

    # -- faults

    def kill(self, name: str, landed: int = 0) -> None:
        """SIGKILL: of what it had in flight, `landed` are in the log, the rest may come yet (not from an embedded process:
        its log is a file that it alone writes). A new one starts in its place."""
        process = self.processes[name]
        for _ in range(min(landed, len(process.log.flight))):
            partition, body, _ = process.log.flight.popleft()
            self.topic.append(partition, body)
        if not self.embedded:
            self.strays += [(partition, body) for partition, body, _ in process.log.flight]
        process.log.flight.clear()
        self.captured |= process.wire.captured
        process.wire.gate = MemoryGate(1, self.crank.now, "nowhere")
        self.loop.kill(name)
        process.log.flight.clear()
        for sent in self.sent:
            sent.dead = sent.dead or (sent.gateway == name and not sent.answered)
        if self.embedded:
            self.gate = self._new_gate()
        self._start(name)
        if self.embedded:
            self._settling()
            self.open()

    def lose_gate(self, left_behind: str | None = None) -> None:
        """The gate's memory is gone. One gateway may be left behind: cut off, with the old gate still answering it."""
        self.gate = self._new_gate()
        if left_behind is not None:
            self.processes[left_behind].cut_off = True
        self._turn(left_behind)
        self.open()

    def promote_replica(self) -> None:
        """A replica that is behind is the gate now; like every server it has an identity of its own."""
        self.gate = deepcopy(self.replica)
        self.gate.identity = self.new_id("run")
        self._turn(None)

    def open(self) -> None:
        """Opens the gate. Embedded nobody else can be admitting, so nothing is waited for."""
        process = self.processes["core" if self.embedded else "opener"]

        async def relayed(_: int) -> None:
            process.refresh()

        quiet = 0.0 if self.embedded else FRESH + DELTA
        opening = Opening(
            process.wire, self.journal, relayed, process.writer, self.balances, self.topic, self.crank.now, self.new_id,
            quiet,
        )  # fmt: skip
        self.opening = self.spawn(process.name, opening.open(range(1), abandoned=self.embedded))

    def is_open(self) -> bool:
        return self.probe("none", "none") is not None

    def probe(self, budget: str, bucket: str) -> BudgetHold | None:
        """A bucket as the gate tells it to a request that it can only refuse; None while it is closed."""
        claim = BudgetClaim(budget, (bucket,), None, 0, -1, True)
        run, now = self.gate.identity, self.crank.now()
        request = AdmitRequest(0, run, self.epoch(), ORG, "probe", None, now, _NEVER, 1, 1, 1, (claim,))
        answer = at_once(self.gate.admit(request))
        assert isinstance(answer, Refused)
        return answer.seen[0] if answer.seen else None

    # -- plumbing

    @property
    def _keeper(self) -> Process:
        return self.processes["core" if self.embedded else "keeper"]

    def admission_of(self, attempt: str) -> RequestAdmitted:
        for record in self.topic.records[0]:
            fact = self.balances.fact(record.value)
            if isinstance(fact, RequestAdmitted) and fact.attempt == attempt:
                return fact
        raise KeyError(attempt)

    def taken(self, request: AdmitRequest, granted: Granted) -> None:
        if request.attempt not in self.holds:
            windows = {claim.budget: claim.window for claim in request.budgets}
            limits = {view.budget: (view.limit, view.limit_version) for view in granted.seen}
            taken = Taken(len(self.holds), granted.hold, request.accounted_at, windows, limits)
            self.holds[request.attempt] = taken

    def new_id(self, prefix: str) -> str:
        self._numbers += 1
        return f"{prefix}_{self._numbers:06d}"

    def spawn(self, process: str, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        token = PROCESS.set(process)
        task = self.loop.create_task(work)
        PROCESS.reset(token)
        self.loop.settle()
        return task

    def end(self) -> None:
        self.loop.end()
        self._patch.undo()

    def _new_gate(self) -> MemoryGate:
        crank = self.crank
        return MemoryGate(1, lambda: crank.now(), self.new_id("run"))  # a replica shares the clock

    def _start(self, name: str) -> None:
        self.processes[name] = self.loop.inside(lambda: Process(name, self))
        self.loop.inside(self.processes[name].refresh)

    def _turn(self, left_behind: str | None) -> None:
        """Everybody else turns to the new gate, and an opening under way is given up."""
        self.kill("opener")
        for name, process in self.processes.items():
            if name != left_behind:
                self.loop.inside(process.connect)
        self._settling()

    def _refresh(self) -> None:
        for process in self.processes.values():
            if not process.cut_off:
                process.refresh()

    def _settling(self) -> None:
        self.loop.kill("settler")
        wire = Wire(self.gate, self.taken)
        self.settler = GateSettler(wire, self.topic, self.gate.identity, lambda _: self.epoch())
        self.spawn("settler", self.settler.run())


async def _exceeded(model: str, request: str, cost: int, hold: int) -> None:
    raise AssertionError(f"{request} cost {cost}, more than its hold of {hold}")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waited")
