"""Who is asking, and for what, resolved from the control events: what admission decides on without asking anybody."""

from dataclasses import dataclass
from datetime import datetime

from domain.budget import Scope
from domain.model import Route
from domain.period import Period
from domain.price_list import Timeline, in_force
from domain.pricing import Price
from domain.service_key import Limits


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
class Caller:
    """A service key and everything it stands for. `refusal` is the code that every request of it gets, if any."""

    org: str
    project: str
    user: str | None
    key: str
    partition: int
    models: frozenset[str] | None
    limits: Limits
    budgets: tuple[ScopedBudget, ...]
    budget_status: int
    refusal: str | None
    valid_until: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A route with its backend, as it can be called now."""

    backend: str
    url: str
    protocol: str
    credential: str | None
    timeout_seconds: float
    upstream_model: str
    weight: int
    tier: int


@dataclass(frozen=True, slots=True, eq=False)
class PublishedModel:
    """A model as callers see it. `targets`: its usable routes, in order of tier."""

    id: str
    targets: tuple[Target, ...]
    max_output_tokens: int
    context_tokens: int
    prices: Timeline
    bound_exceeded: bool

    def price(self, moment: datetime) -> Price | None:
        """The price in force at `moment`."""
        return in_force(self.prices, moment)


def target_of(route: Route, url: str, protocol: str, credential: str | None, timeout_seconds: float) -> Target:
    """`route` on a backend."""
    return Target(
        backend=route.backend,
        url=url,
        protocol=protocol,
        credential=credential,
        timeout_seconds=timeout_seconds,
        upstream_model=route.upstream_model,
        weight=route.weight,
        tier=route.tier,
    )
