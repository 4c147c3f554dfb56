"""Facts: what happened to requests, as the gateway saw it. Stored format: change a shape only by a new schema version.

A fact freezes what it needs (budgets, periods, price version, cost), so replay never looks anything up. The unit is the
*attempt*: the first attempt's id is the request's own, later ones are ``<request>.2``, ``<request>.3``. Every fact
about an attempt repeats the attempt's identity. Money is nano-dollars, times are UTC, durations are milliseconds.
"""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

Mode = Literal["hard", "soft"]


class BudgetHold(Struct, frozen=True, kw_only=True):
    """A budget in scope at admission, as the gate saw it *before* this hold.

    `bucket` names the period bucket that takes the hold (it begins with the budget's life, so that a budget removed
    and set again starts at zero), `until` is when the bucket leaves the last window that counts it, `consumed` and
    `held` are sums over the whole window.
    """

    budget: str
    bucket: str
    until: datetime | None
    limit: int
    limit_version: int
    mode: Mode
    consumed: int
    held: int


class Tokens(Struct, frozen=True, kw_only=True):
    """Tokens by class. The classes are disjoint: `input` and `output` are what is in no other class."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    audio_input: int = 0
    image_input: int = 0
    audio_output: int = 0

    @property
    def all_input(self) -> int:
        return self.input + self.cached_input + self.cache_write + self.audio_input + self.image_input

    @property
    def all_output(self) -> int:
        return self.output + self.reasoning + self.audio_output

    @property
    def total(self) -> int:
        """All tokens."""
        return self.all_input + self.all_output


class Usage(Tokens, frozen=True, kw_only=True, omit_defaults=True):
    """The tokens of one attempt."""


class Try(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try at one backend: the HTTP status it answered (0: none), or why there was no answer."""

    backend: str
    status: int = 0
    error: str | None = None
    ms: float = 0.0


class AttemptFact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The identity of an attempt, repeated by each of its facts. `accounted_at` places it in every period."""

    request: str
    attempt: str
    org: str
    project: str
    user: str | None = None
    key: str
    model: str
    endpoint: str
    stream: bool = False
    accounted_at: datetime
    price: str | None = None
    hold: int = 0


class RequestAdmitted(AttemptFact, frozen=True, kw_only=True, omit_defaults=True):
    """The gate holds `hold` in every budget of `budgets`, under `epoch`. After `deadline` without an end the attempt is
    unconfirmed. `grant` is the output cap per choice that the hold pays for; `once` the keyed hash of the caller's
    Idempotency-Key; `input_bound` the tokens the input cannot exceed. It goes to `backend`, and to one of the `others` if that
    one surely did not serve it. `asked_model` is what the caller asked for where `model` is its `fallback`, which is why."""

    epoch: int
    deadline: datetime
    budgets: tuple[BudgetHold, ...] = ()
    backend: str | None = None
    grant: int | None = None
    clamped: bool = False
    input_bound: int = 0
    once: str | None = None
    others: tuple[str, ...] = ()
    asked_model: str | None = None
    fallback: str | None = None


class RequestDenied(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Refused before anything was held. `worst` is what the request could have cost at `price` with all the output it asked
    for. `count` > 1: identical refusals of one key folded, from `request` to `last`."""

    request: str
    org: str
    project: str
    user: str | None = None
    key: str
    model: str | None = None
    endpoint: str
    accounted_at: datetime
    status: int
    code: str
    reason: str
    budget: str | None = None
    budgets: tuple[BudgetHold, ...] = ()
    price: str | None = None
    worst: int = 0
    count: int = 1
    last: str | None = None


class RequestCompleted(AttemptFact, frozen=True, kw_only=True, omit_defaults=True):
    """A backend served it: `cost` is final. `estimated`: counted by us, not reported; `overrun`: above the hold, the bound
    was wrong; `abandoned`: the caller left."""

    usage: Usage
    cost: int
    backend: str | None = None
    tries: tuple[Try, ...] = ()
    status: int = 200
    estimated: bool = False
    overrun: bool = False
    abandoned: bool = False
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    source: Literal["gateway", "reconcile"] = "gateway"


class RequestFailed(AttemptFact, frozen=True, kw_only=True, omit_defaults=True):
    """It surely cost nothing: never dispatched, or the backend refused it. `reason` is a code such as
    ``not_dispatched``, ``upstream_refused``, ``upstream_status``, ``not_served``."""

    reason: str
    status: int = 0
    backend: str | None = None
    tries: tuple[Try, ...] = ()
    latency_ms: float = 0.0


class RequestUnconfirmed(AttemptFact, frozen=True, kw_only=True, omit_defaults=True):
    """Sent, or perhaps sent, and never confirmed: its whole hold counts, as an estimate, until something better is known."""

    reason: str
    backend: str | None = None
    tries: tuple[Try, ...] = ()
    latency_ms: float = 0.0


class RequestVoided(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The keeper ends a hold whose admission never reached the log."""

    attempt: str
    org: str


class RequestWrittenOff(AttemptFact, frozen=True, kw_only=True, omit_defaults=True):
    """An admin released the hold of an unconfirmed request."""

    reason: str


class GateOpened(Struct, frozen=True, kw_only=True):
    """The barrier of an epoch in one facts partition: admissions of older epochs that come later are void."""

    partition: int
    epoch: int


FACTS: dict[str, type[Struct]] = {
    cls.__name__: cls
    for cls in (
        RequestAdmitted,
        RequestDenied,
        RequestCompleted,
        RequestFailed,
        RequestUnconfirmed,
        RequestVoided,
        RequestWrittenOff,
        GateOpened,
    )
}
"""Stored type name to shape, schema 1 of each."""

Fact = (
    RequestAdmitted
    | RequestDenied
    | RequestCompleted
    | RequestFailed
    | RequestUnconfirmed
    | RequestVoided
    | RequestWrittenOff
    | GateOpened
)


def only_backend(admission: RequestAdmitted) -> str | None:
    """Where an attempt went, if all that is known of it is its admission; None: that does not say it."""
    return None if admission.others else admission.backend


def identity_of(fact: AttemptFact) -> dict[str, Any]:
    """The fields that every fact about the same attempt repeats."""
    return {name: getattr(fact, name) for name in AttemptFact.__struct_fields__}
