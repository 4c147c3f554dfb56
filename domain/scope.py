"""Who is asking, and for what, resolved from the control events: what admission decides on without asking anybody."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, groupby

from domain.backend import USUAL, Connection, Terms
from domain.budget import Scope
from domain.limits import UNLIMITED, Limits
from domain.model import Balance, Route
from domain.organization import FallbackReason
from domain.period import Period
from domain.price_list import Timeline, in_force
from domain.pricing import Price


@dataclass(frozen=True, slots=True, eq=False)
class ScopedBudget:
    """A budget on the path org > project > user > key of a caller. `limit` is the one in force, nano-dollars."""

    id: str
    scope: Scope
    life: int
    limit: int
    version: int
    hard: bool
    models: frozenset[str] | None
    period: Period


@dataclass(frozen=True, slots=True, eq=False)
class ScopedLimits:
    """Rate limits on the path org > project > user > key of a caller."""

    scope: Scope
    limits: Limits


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """A service key and everything it stands for. `limits`: where there are any, the narrowest scope first; `model_limits`: what
    its organization may use of single models; `refusal` is the code that every request of it gets, if any; `fallbacks` says of a
    model which other one serves its requests, by the reason."""

    org: str
    project: str
    user: str | None
    key: str
    partition: int
    models: frozenset[str] | None
    limits: tuple[ScopedLimits, ...]
    budgets: tuple[ScopedBudget, ...]
    budget_status: int
    refusal: str | None
    valid_until: datetime | None
    model_limits: Mapping[str, Limits] = field(default_factory=dict)
    fallbacks: Mapping[str, Mapping[FallbackReason, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A route with its backend, as it can be called now. `weight` is the route's times the backend's."""

    backend: str
    url: str
    protocol: str
    credential: str | None
    timeout_seconds: float
    upstream_model: str
    weight: int
    tier: int
    terms: Terms = USUAL


@dataclass(frozen=True, slots=True, eq=False)
class Tier:
    """Targets that share the load by their weights; `bounds` are the sums of the weights up to and with each."""

    targets: tuple[Target, ...]
    bounds: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PublishedModel:
    """A model as callers see it. `targets`: its usable routes, in order of tier; `tiers`: the same, without those that no
    weight lets take part; `patience`: seconds that the most patient of them waits; `limits`: those of each organization."""

    id: str
    targets: tuple[Target, ...]
    max_output_tokens: int
    context_tokens: int
    prices: Timeline
    bound_exceeded: bool
    balance: Balance = "weighted"
    limits: Limits = UNLIMITED
    tiers: tuple[Tier, ...] = field(init=False)
    backends: tuple[str, ...] = field(init=False)
    patience: float = field(init=False)

    def __post_init__(self) -> None:
        tiers = tuple(_tiers(target for target in self.targets if target.weight))
        backends = dict.fromkeys(target.backend for tier in tiers for target in tier.targets)
        object.__setattr__(self, "tiers", tiers)
        object.__setattr__(self, "backends", tuple(backends))
        object.__setattr__(self, "patience", max((target.timeout_seconds for target in self.targets), default=0.0))

    def price(self, moment: datetime) -> Price | None:
        """The price in force at `moment`."""
        return in_force(self.prices, moment)

    def others(self, backend: str) -> tuple[str, ...]:
        """The backends that a request sent to `backend` may go to instead."""
        return tuple(other for other in self.backends if other != backend) if len(self.backends) > 1 else ()


def target_of(route: Route, host: Connection) -> Target:
    """`route` on a backend."""
    return Target(
        backend=route.backend,
        url=host.url,
        protocol=host.protocol,
        credential=host.credential,
        timeout_seconds=host.timeout_seconds,
        upstream_model=route.upstream_model,
        weight=route.weight * host.weight,
        tier=route.tier,
        terms=host.terms or USUAL,
    )


def _tiers(targets: Iterable[Target]) -> Iterable[Tier]:
    for _, group in groupby(targets, key=lambda target: target.tier):
        found = tuple(group)
        yield Tier(found, tuple(accumulate(target.weight for target in found)))
