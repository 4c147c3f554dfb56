"""Admission: hold in the gate, make the admission durable, and only then let a request be dispatched.

`docs/protocol.md` says why each step is where it is. Nothing here knows HTTP: a face (OpenAI, Anthropic) describes what
is asked as a `Call`, calls `Admission.admit`, and afterwards exactly one method of `commands.outcomes.Outcomes`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from commands.fact_writer import FactWriter
from commands.gate import AdmitRequest, BudgetClaim, Gate, Granted, RateClaim, Refused
from commands.ports import Clock
from commands.rates import rate_claims, refusal_of
from commands.soft_budgets import SoftBudgets
from commands.tracing import Trace
from domain.bound import KNOWN_UNBOUNDED
from domain.errors import GateUnavailable, LogUnavailable, NotReady, TollhouseError
from domain.facts import RequestAdmitted, RequestFailed
from domain.organization import FallbackReason
from domain.period import window
from domain.pricing import Price, worst_base, worst_unit
from domain.scope import Caller, PublishedModel

DELTA = 2.0
"""Seconds, counted from before the gate is asked, in which an admission must be acknowledged to be dispatched."""

SWEEP_SECONDS = 0.05
"""Between two looks at whose DELTA is over, at most."""

GRACE = timedelta(seconds=5)
"""Beyond the longest timeout of the backends it may go to: after that an open attempt is unconfirmed."""


_MOST = 1 << 62
"""Nano-dollars. Stored amounts are 64-bit integers."""


class View(Protocol):
    """What admission asks of the view of the control topic."""

    version: int

    def fresh(self, monotonic: float) -> bool: ...

    def epoch(self, partition: int) -> int: ...


@dataclass(slots=True)
class Call:
    """What a caller asks for. `input_bound`: tokens the input cannot exceed (`context_bounded`: only the model's context
    window bounds it, and it may be more than text); `estimated_input`: about how many it has; `cap`: output tokens per choice
    the caller allows, None if it stated none; `spoken`: some may be sound; `unbounded`: the field whose cost has no bound, if
    any; `once`: keyed hash of the Idempotency-Key; `sticky`: what the caller calls the prompt cache that the request should
    meet; `trace`: the one that it belongs to."""

    endpoint: str
    model: str
    stream: bool
    input_bound: int
    estimated_input: int
    cap: int | None = None
    choices: int = 1
    spoken: bool = False
    unbounded: str | None = None
    context_bounded: bool = False
    once: str | None = None
    sticky: bytes | None = None
    trace: Trace | None = None


class Denied(TollhouseError):
    """Refused, nothing held. `refused` is the gate's word, if it came that far, `price` and `worst` (nano-dollars) what it
    was asked about; `param` the field to blame, if one is; `reason` what the books say: the message, unless that repeats what the
    caller called things."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        refused: Refused | None = None,
        price: Price | None = None,
        worst: int = 0,
        reason: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.param, self.refused, self.price, self.worst = param, refused, price, worst
        self.reason = message if reason is None else reason


@dataclass(frozen=True, slots=True)
class Instead:
    """The model that a caller asked for, where another one is admitted, and why."""

    model: str
    reason: FallbackReason


@dataclass(slots=True)
class Admitted:
    """A request that may be dispatched. `grant` is the output cap to send upstream, `began` this process's monotonic time."""

    request: str
    caller: Caller
    call: Call
    price: Price | None
    granted: Granted
    epoch: int
    accounted_at: datetime
    began: float
    clamped: bool
    identity: dict[str, Any]
    """The fields every fact about this attempt repeats."""
    backends: tuple[str, ...] = ()
    """Where it may be sent under its hold; where it goes first comes first."""
    instead: Instead | None = None

    @property
    def model(self) -> str:
        """The one that was admitted."""
        return str(self.identity["model"])

    @property
    def attempt(self) -> str:
        """The id it has in gate and log, and at the backend."""
        return str(self.identity["attempt"])

    @property
    def hold(self) -> int:
        return self.granted.hold

    @property
    def grant(self) -> int:
        return self.granted.grant


@dataclass(frozen=True, slots=True)
class _Claims:
    until: datetime | None
    budgets: tuple[BudgetClaim, ...]
    hard: bool
    soft: bool
    rates: tuple[RateClaim, ...]


class Admission:
    """One per gateway, on one event loop. `run` is the identity of the gate it uses; `stepped` says by how many seconds the
    system's clock leapt away from `clock`: nothing is admitted then, for nobody knows which period it is."""

    def __init__(
        self,
        gate: Gate,
        writer: FactWriter,
        view: View,
        clock: Clock,
        run: str,
        stepped: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._gate, self._writer, self._view, self._clock, self._run = gate, writer, view, clock, run
        self._stepped = stepped
        self._loop = asyncio.get_running_loop()
        self._awaited: deque[tuple[float, asyncio.Future[int]]] = deque()
        """What the log has yet to acknowledge, and until when that counts; of about equal deadlines in order."""
        self._claims: dict[tuple[str, str, str], _Claims] = {}
        self._claims_version = -1
        self._soft = SoftBudgets()

    async def admit(
        self,
        attempt: str,
        caller: Caller,
        call: Call,
        model: PublishedModel,
        backend: str | None = None,
        request: str | None = None,
        instead: Instead | None = None,
    ) -> Admitted:
        """Holds, and returns once the admission is durable. `backend` is where it goes first (None: the model's first);
        `request` the one that a later attempt belongs to; `instead` says what was asked for, if not `model`.

        Raises `Denied`; `NotReady`, `GateUnavailable` or `LogUnavailable` when nothing can be decided.
        """
        began = time.monotonic()
        if not self._view.fresh(began):
            raise NotReady("this gateway's view of keys and budgets is older than it may be")
        self._writer.require_up()
        if stepped := self._stepped():
            raise NotReady(f"the system's clock leapt by {stepped:.0f} s")
        now = self._clock()
        price = model.price(now)
        claims = self._claims_of(caller, model, now)
        if claims.hard:
            self._require_bound(call, price, model)
        bound = max(call.input_bound, model.context_tokens) if call.context_bounded else call.input_bound
        want = model.max_output_tokens if call.cap is None else call.cap
        base = 0 if price is None else worst_base(price, bound, media=call.context_bounded)
        unit = 0 if price is None else worst_unit(price, call.choices, audio=call.spoken)
        worst = base + unit * want
        if worst > _MOST:
            raise Denied(
                "unbounded_cost", "the request could cost more than can be counted", param="max_completion_tokens"
            )
        epoch = self._view.epoch(caller.partition)
        answer = await self._gate.admit(
            AdmitRequest(
                partition=caller.partition,
                run=self._run,
                epoch=epoch,
                org=caller.org,
                attempt=attempt,
                once=call.once,
                accounted_at=now,
                base=base,
                unit=unit,
                want=want,
                least=min(1, want) if call.cap is None else want,
                budgets=claims.budgets,
                rates=claims.rates,
                tokens=call.estimated_input + want * call.choices,
            )
        )
        if isinstance(answer, Refused):
            if answer.code == "gate_unavailable":
                raise GateUnavailable("the gate is closed, or open for another epoch")
            raise Denied(answer.code, _reason(answer), refused=answer, price=price, worst=worst)
        if claims.soft:
            self._soft.saw(caller.org, answer.seen)
        identity = {
            "request": request or attempt,
            "attempt": attempt,
            "org": caller.org,
            "project": caller.project,
            "user": caller.user,
            "key": caller.key,
            "model": model.id,
            "endpoint": call.endpoint,
            "stream": call.stream,
            "accounted_at": now,
            "price": price.version if price else None,
            "hold": answer.hold,
        }
        clamped = answer.grant < want
        first = backend or model.targets[0].backend
        backends = (first, *model.others(first))
        admitted = Admitted(
            request or attempt, caller, call, price, answer, epoch, now, began, clamped, identity, backends, instead
        )
        await self._record(admitted, model, bound)
        return admitted

    def past_soft(self, caller: Caller, model: PublishedModel) -> bool:
        """Whether a soft budget that a request of `model` counts in was seen past its limit."""
        claims = self._claims_of(caller, model, self._clock())
        return claims.soft and self._soft.past(caller.org, claims.budgets)

    # -- inside

    async def _record(self, admitted: Admitted, model: PublishedModel, bound: int) -> None:
        caller, instead, (backend, *others) = admitted.caller, admitted.instead, admitted.backends
        fact = RequestAdmitted(
            **admitted.identity,
            epoch=admitted.epoch,
            deadline=admitted.accounted_at + timedelta(seconds=model.patience) + GRACE,
            budgets=admitted.granted.seen,
            backend=backend,
            grant=admitted.grant,
            clamped=admitted.clamped,
            input_bound=bound,
            once=admitted.call.once,
            others=tuple(others),
            asked_model=None if instead is None else instead.model,
            fallback=None if instead is None else instead.reason,
        )
        body = self._writer.body(fact, caller.org, admitted.request, caller.key, admitted.call.trace)
        acknowledged = asyncio.ensure_future(self._writer.append(caller.partition, body))
        self._give_up_at(admitted.began + DELTA, acknowledged)
        try:
            await acknowledged
        except LogUnavailable:
            self._writer.saw_failure()
            self._writer.later(self._not_dispatched(admitted))
            raise
        except asyncio.CancelledError:  # nobody waits any more, and the log may have it all the same
            self._writer.later(self._not_dispatched(admitted))
            raise
        if time.monotonic() - admitted.began > DELTA:  # acknowledged, but this process was not awake to see it in time
            self._writer.later(self._not_dispatched(admitted))
            raise LogUnavailable("the log did not acknowledge in time")

    def _give_up_at(self, deadline: float, acknowledged: "asyncio.Future[int]") -> None:
        """After `deadline`, whatever the log says later, the request is not dispatched. One timer watches all of them."""
        self._awaited.append((deadline, acknowledged))
        if len(self._awaited) == 1:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        awaited, now = self._awaited, time.monotonic()
        while awaited and (awaited[0][1].done() or awaited[0][0] <= now):
            _, acknowledged = awaited.popleft()
            if not acknowledged.done():
                acknowledged.set_exception(LogUnavailable("the log did not acknowledge in time"))
        if awaited:
            self._loop.call_later(min(SWEEP_SECONDS, awaited[0][0] - now), self._sweep)

    async def _not_dispatched(self, admitted: Admitted) -> None:
        fact = RequestFailed(**admitted.identity, reason="not_dispatched", status=503)
        caller = admitted.caller
        body = self._writer.body(fact, caller.org, admitted.request, caller.key, admitted.call.trace)
        await self._writer.append_until_acknowledged(caller.partition, body)

    def _claims_of(self, caller: Caller, model: PublishedModel, now: datetime) -> _Claims:
        """The limits in scope, and the budgets with their buckets of now; computed once per period, key and model."""
        if self._claims_version != self._view.version:
            self._claims.clear()
            self._claims_version = self._view.version
        key = (caller.org, caller.key, model.id)
        known = self._claims.get(key)
        if known is None or (known.until is not None and known.until <= now):
            known = self._claims[key] = _claims(caller, model, now)
        return known

    def _require_bound(self, call: Call, price: Price | None, model: PublishedModel) -> None:
        if price is None:
            raise Denied(
                "model_unpriced", f"model {model.id} has no price and a hard budget is in scope", param="model"
            )
        if call.unbounded is not None:
            words = "the cost of {} has no bound and a hard budget is in scope"
            raise Denied(
                "unbounded_cost",
                words.format(call.unbounded),
                param=call.unbounded,
                reason=words.format(call.unbounded if call.unbounded in KNOWN_UNBOUNDED else "something unknown"),
            )
        if model.bound_exceeded:
            raise Denied(
                "unbounded_cost", f"a request of {model.id} cost more than its bound: publish it anew", param="model"
            )


def _claims(caller: Caller, model: PublishedModel, now: datetime) -> _Claims:
    claims, ends = [], []
    for budget in caller.budgets:
        if budget.models is not None and model.id not in budget.models:
            continue
        span = window(budget.period, now)
        if span.valid_until is not None:
            ends.append(span.valid_until)
        names = tuple(f"{budget.life}.{name}" for name in span.buckets)
        claims.append(BudgetClaim(budget.id, names, span.until, budget.limit, budget.version, budget.hard))
    hard = any(claim.hard for claim in claims)
    soft = any(not claim.hard for claim in claims)
    return _Claims(min(ends, default=None), tuple(claims), hard, soft, rate_claims(caller, model))


def _reason(refused: Refused) -> str:
    match refused.code:
        case "budget_busy":
            return f"the rest of budget {refused.budget} is held by requests in flight; try again"
        case "insufficient_quota":
            return f"budget {refused.budget} is exhausted"
        case "rate_limit_exceeded":
            return refusal_of(refused)
        case "duplicate_request":
            return f"this Idempotency-Key was used for {refused.first}"
        case code:
            return code
