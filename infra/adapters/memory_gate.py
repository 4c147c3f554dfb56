"""The gate of embedded mode, in the memory of the one process: `Gate` and `GateSink`.

Guarantees what `docs/protocol.md` asks of a gate: each operation is atomic (no await inside), a hold shrinks only by
`capture` (after the completion's acknowledgement) and ends only by `settle`, which never creates one. A new process is
a lost gate: `run` differs at each start, and every partition is closed until it was opened from the log.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from commands.gate import AdmitRequest, BudgetClaim, Granted, OpenHold, Refused, Settled
from domain.errors import Conflict
from domain.facts import BudgetHold
from domain.fold import REMEMBER, Books, State
from infra.adapters.memory_rates import BUSY_RETRY, MemoryRates, Rate, Taken

SKEW = timedelta(seconds=60)
"""An admission accounted further off the gate's own clock could open a past bucket at zero."""

_FAILED = "failed"
"""What an attempt with an Idempotency-Key is, whose state is void: only a failure voids one whose admission counted."""

_PRUNE_EVERY = timedelta(minutes=1)
_PRUNE_AFTER = timedelta(hours=1)


@dataclass(slots=True)
class _Bucket:
    consumed: int = 0
    held: int = 0
    unconfirmed: int = 0
    until: datetime | None = None


@dataclass(slots=True)
class _Once:
    request: str
    at: datetime
    outcome: str


@dataclass(slots=True)
class _Hold:
    org: str
    amount: int
    at: datetime
    buckets: list[_Bucket]
    granted: Granted
    taken: Taken | None = None
    once: _Once | None = None
    logged: bool = False
    unconfirmed: bool = False


@dataclass(slots=True)
class _Limit:
    """The highest version of a budget's limit that was shown; `until` is when its last bucket leaves the window."""

    version: int
    limit: int
    until: datetime | None

    def last(self, until: datetime | None) -> None:
        self.until = until if until is None or self.until is None else max(self.until, until)


@dataclass(slots=True)
class _Partition:
    run: str = ""
    epoch: int = -1
    opened: bool = False
    watermark: int = 0
    buckets: defaultdict[tuple[str, str], dict[str, _Bucket]] = field(default_factory=lambda: defaultdict(dict))
    """By organization and budget, and then by name."""
    limits: dict[tuple[str, str], _Limit] = field(default_factory=dict)
    holds: dict[str, _Hold] = field(default_factory=dict)
    unlogged: dict[str, _Hold] = field(default_factory=dict)
    once: dict[str, _Once] = field(default_factory=dict)
    rates: MemoryRates = field(default_factory=MemoryRates)
    pruned: datetime | None = None


class MemoryGate:
    """See the module. `clock` gives UTC now; `identity` names this process's memory; `passed` tells seconds that no
    correction of the clock makes longer or shorter, for rate limits (None: by `clock`)."""

    def __init__(
        self,
        partitions: int,
        clock: Callable[[], datetime],
        identity: str,
        passed: Callable[[], float] | None = None,
    ) -> None:
        self._partitions = [_Partition() for _ in range(partitions)]
        self._clock, self.identity = clock, identity
        self._passed = passed or (lambda: clock().timestamp())

    async def run(self) -> str:
        return self.identity

    async def admit(self, request: AdmitRequest) -> Granted | Refused:
        """See `commands.gate.Gate`."""
        part = self._partitions[request.partition]
        now = self._clock()
        if not part.opened or part.run != request.run or part.epoch != request.epoch:
            return Refused("gate_unavailable", retry_after=1.0)
        if abs(request.accounted_at - now) > SKEW:
            return Refused("gate_unavailable", retry_after=1.0)
        if (known := part.holds.get(request.attempt)) is not None:
            return known.granted
        if request.once is not None and (first := part.once.get(request.once)) is not None:
            return Refused("duplicate_request", first=first.request, outcome=first.outcome)
        seconds = self._passed() if request.rates else 0.0
        if request.rates and (full := part.rates.in_the_way(request, seconds)) is not None:
            rates = part.rates.state(request.rates, seconds)
            return Refused("rate_limit_exceeded", retry_after=full[1], rate=full[0], rates=rates)
        seen, buckets = [], []
        grant, refusal = request.want, None
        for claim in request.budgets:
            view, bucket = self._look(part, request.org, claim)
            seen.append(view)
            buckets.append(bucket)
            if not claim.hard:
                continue
            left = view.limit - view.consumed - view.held
            fits = _affordable(left, request)
            if fits < request.least:
                possible = _affordable(left + view.held, request)
                code = "budget_busy" if possible >= request.least else "insufficient_quota"
                if refusal is None or (refusal[0] == "budget_busy" and code == "insufficient_quota"):
                    refusal = (code, claim.budget)
            grant = min(grant, fits)
        if refusal is not None:
            wait = BUSY_RETRY if refusal[0] == "budget_busy" else None
            rates = part.rates.state(request.rates, seconds) if request.rates else ()
            return Refused(refusal[0], tuple(seen), refusal[1], retry_after=wait, rates=rates)
        return self._hold(part, request, grant, tuple(seen), buckets, seconds)

    def capture(self, partition: int, attempt: str, actual: int, tokens: int | None = None) -> None:
        """See `commands.gate.Gate`. Never grows a hold: a cost above it is booked by settling."""
        part = self._partitions[partition]
        hold = part.holds.get(attempt)
        if hold is None:
            return
        self._free(part, hold, tokens)
        if actual < hold.amount:
            for bucket in hold.buckets:
                bucket.held -= hold.amount - actual
                if hold.unconfirmed:
                    bucket.unconfirmed -= hold.amount - actual
            hold.amount = actual

    async def expired(self, before: datetime) -> Sequence[OpenHold]:
        """See `commands.gate.Gate`."""
        return [
            OpenHold(number, hold.org, attempt)
            for number, part in enumerate(self._partitions)
            for attempt, hold in part.unlogged.items()
            if hold.at < before
        ]

    async def begin(self, partition: int, run: str, epoch: int) -> None:
        """See `commands.gate.Gate`."""
        part = self._partitions[partition]
        if epoch <= part.epoch:
            raise Conflict(f"gate {partition} is at epoch {part.epoch}; {epoch} is not above it", code="stale_epoch")
        self._partitions[partition] = _Partition(run=run, epoch=epoch, rates=part.rates.without_places())

    async def finish(self, partition: int, run: str, epoch: int, watermark: int, books: Books) -> None:
        """See `commands.gate.Gate`."""
        part = self._partitions[partition]
        if part.run != run or part.epoch != epoch:
            raise Conflict(f"gate {partition} began epoch {part.epoch} meanwhile", code="stale_epoch")
        if part.opened:
            raise Conflict(f"gate {partition} is open already", code="gate_open")
        for (org, budget, name), bucket in books.buckets.items():
            part.buckets[org, budget][name] = _Bucket(bucket.consumed - bucket.estimated, 0, 0, bucket.until)
        for attempt, known in books.attempts.items():
            if known.state not in (State.OPEN, State.UNCONFIRMED):
                continue
            buckets = [part.buckets[org, budget][name] for org, budget, name in known.buckets]
            unconfirmed = known.state is State.UNCONFIRMED
            for target in buckets:
                target.held += known.hold
                target.unconfirmed += known.hold if unconfirmed else 0
            at = known.accounted_at or self._clock()
            org = known.buckets[0][0] if known.buckets else ""
            granted = Granted(known.hold, 0, ())
            part.holds[attempt] = _Hold(org, known.hold, at, buckets, granted, None, None, True, unconfirmed)
        for once, (request, at) in books.once.items():
            found = books.attempts.get(request)
            outcome = "unknown" if found is None else _FAILED if found.state is State.VOID else found.state.value
            entry = part.once[once] = _Once(request, at, outcome)
            if request in part.holds:
                part.holds[request].once = entry
        part.watermark, part.opened = watermark, True

    async def settle(self, partition: int, run: str, epoch: int, start: int, facts: Sequence[Settled]) -> bool:
        """See `commands.gate.GateSink`."""
        part = self._partitions[partition]
        if not part.opened or part.run != run or part.epoch != epoch or part.watermark != start:
            return False
        for fact in facts:
            self._settle(part, fact)
        part.watermark = start + len(facts)
        now = self._clock()
        if part.pruned is None or now - part.pruned > _PRUNE_EVERY:
            self._prune(part, now)
        return True

    async def watermark(self, partition: int) -> int | None:
        """See `commands.gate.GateSink`."""
        part = self._partitions[partition]
        return part.watermark if part.opened else None

    # -- inside one atomic step

    def _look(self, part: _Partition, org: str, claim: BudgetClaim) -> tuple[BudgetHold, _Bucket]:
        """The budget as it is now (unconfirmed holds count as consumed), and the bucket that would take the hold."""
        whose = org, claim.budget
        known = part.limits.get(whose)
        if known is None:
            known = part.limits[whose] = _Limit(claim.version, claim.limit, claim.until)
        elif known.version < claim.version:
            known.version, known.limit = claim.version, claim.limit
            known.last(claim.until)
        consumed = held = 0
        bucket: _Bucket | None = None
        buckets = part.buckets[whose]
        for name in claim.window:
            bucket = buckets.get(name)
            if bucket is not None:
                consumed += bucket.consumed + bucket.unconfirmed
                held += bucket.held - bucket.unconfirmed
        name = claim.window[-1]
        if bucket is None:
            bucket = buckets[name] = _Bucket(until=claim.until)
            known.last(claim.until)
        view = BudgetHold(
            budget=claim.budget,
            bucket=name,
            until=claim.until,
            limit=known.limit,
            limit_version=known.version,
            mode="hard" if claim.hard else "soft",
            consumed=consumed,
            held=held,
        )
        return view, bucket

    def _hold(
        self,
        part: _Partition,
        request: AdmitRequest,
        grant: int,
        seen: tuple[BudgetHold, ...],
        buckets: list[_Bucket],
        seconds: float,
    ) -> Granted:
        amount = request.base + request.unit * grant
        for bucket in buckets:
            bucket.held += amount
        taken: Taken | None = None
        rates: tuple[Rate, ...] = ()
        if request.rates:
            taken = part.rates.take(request, seconds)
            rates = part.rates.state(request.rates, seconds)
        granted = Granted(amount, grant, seen, rates)
        hold = _Hold(request.org, amount, request.accounted_at, buckets, granted, taken)
        part.holds[request.attempt] = part.unlogged[request.attempt] = hold
        if request.once is not None:
            hold.once = part.once[request.once] = _Once(request.attempt, request.accounted_at, State.OPEN.value)
        return granted

    def _settle(self, part: _Partition, fact: Settled) -> None:
        hold = part.holds.get(fact.attempt)
        if hold is None:
            return
        match fact.type:
            case "RequestAdmitted":
                hold.logged = True
                part.unlogged.pop(fact.attempt, None)
            case "RequestCompleted":
                self._end(part, fact.attempt, hold, State.DONE, fact.tokens)
                for bucket in hold.buckets:
                    bucket.consumed += fact.cost
            case "RequestFailed":
                self._end(part, fact.attempt, hold, _FAILED, 0)
            case "RequestVoided":
                if not hold.logged:
                    self._end(part, fact.attempt, hold, State.VOID, 0)
            case "RequestWrittenOff":
                if hold.unconfirmed:
                    self._end(part, fact.attempt, hold, State.WRITTEN_OFF)
            case "RequestUnconfirmed":
                if hold.logged and not hold.unconfirmed:
                    hold.unconfirmed = True
                    self._free(part, hold)
                    if hold.once is not None:
                        hold.once.outcome = State.UNCONFIRMED.value
                    for bucket in hold.buckets:
                        bucket.unconfirmed += hold.amount

    def _end(self, part: _Partition, attempt: str, hold: _Hold, outcome: str, tokens: int | None = None) -> None:
        del part.holds[attempt]
        part.unlogged.pop(attempt, None)
        self._free(part, hold, tokens)
        if hold.once is not None:
            hold.once.outcome = outcome
        for bucket in hold.buckets:
            bucket.held -= hold.amount
            if hold.unconfirmed:
                bucket.unconfirmed -= hold.amount

    def _free(self, part: _Partition, hold: _Hold, tokens: int | None = None) -> None:
        """It is not under way any more, and was of so many tokens, if that is known."""
        if hold.taken is not None:
            part.rates.free(hold.taken)
            if tokens is not None:
                part.rates.used(hold.taken, tokens, self._passed())

    def _prune(self, part: _Partition, now: datetime) -> None:
        """Forgets buckets that no window counts any more and limits of such buckets only, once-keys past their day, and rate
        limits that nothing was admitted under for a window."""
        part.pruned = now
        for whose, buckets in list(part.buckets.items()):
            for name in [n for n, b in buckets.items() if b.until and now - b.until > _PRUNE_AFTER and not b.held]:
                del buckets[name]
            if not buckets:
                del part.buckets[whose]
        for once in [k for k, entry in part.once.items() if now - entry.at > REMEMBER]:
            del part.once[once]
        for budget in [k for k, known in part.limits.items() if known.until and now - known.until > _PRUNE_AFTER]:
            del part.limits[budget]
        part.rates.prune(self._passed())


def _affordable(left: int, request: AdmitRequest) -> int:
    """Tokens of output cap that `left` pays for, at most what is wanted; -1 when not even the base fits."""
    room = left - request.base
    if room < 0:
        return -1
    return min(request.want, room // request.unit) if request.unit else request.want
