"""Models: the public names applications ask for, where each is routed, and the caps that bound what a request can cost."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from domain.errors import NotFound, invalid
from domain.inputs import at_least, reason_text
from domain.limits import UNLIMITED, Limits, checked

KIND = "model"

MOST_TOKENS = 1_000_000_000
"""Of a context window or an answer."""


Balance = Literal["weighted", "least_loaded"]
"""How a tier shares its load: by weight alone, or to where the fewest requests and the shortest times are, for their weight."""


class Route(Struct, frozen=True, kw_only=True):
    """One way to serve a model. Lower `tier`s are tried first; `weight` shares the load within a tier."""

    backend: str
    upstream_model: str
    weight: int = 1
    tier: int = 0


# ---------------------------------------------------------------- events: stored format


class ModelPublished(Struct, frozen=True, kw_only=True):
    """All terms of a model, new or changed. `max_output_tokens` is the output cap of a request that states none; `balance` left
    out is by weight. `limits` are those of each organization by itself; left out, there are none."""

    routes: tuple[Route, ...]
    max_output_tokens: int
    context_tokens: int
    tokenizer: str | None
    balance: Balance | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET


class ModelRouteChanged(Struct, frozen=True, kw_only=True):
    routes: tuple[Route, ...]
    before: tuple[Route, ...]


class ModelWithdrawn(Struct, frozen=True, kw_only=True):
    reason: str | None


class ModelBoundExceeded(Struct, frozen=True, kw_only=True):
    """A request cost more than it could by its bound (nano-dollars): the bound is wrong, nobody knows by how much."""

    request: str
    cost: int
    hold: int


Event = ModelPublished | ModelRouteChanged | ModelWithdrawn | ModelBoundExceeded

EVENTS: tuple[type[Struct], ...] = (ModelPublished, ModelRouteChanged, ModelWithdrawn, ModelBoundExceeded)


# ---------------------------------------------------------------- state


class Model(Struct, frozen=True, kw_only=True):
    routes: tuple[Route, ...]
    max_output_tokens: int
    context_tokens: int
    tokenizer: str | None
    balance: Balance = "weighted"
    limits: Limits = UNLIMITED
    removed: bool = False
    bound_exceeded: bool = False
    """Refused under hard budgets until it is published again: somebody has looked then."""


def evolve(state: Model | None, event: Event) -> Model | None:
    """The state after `event`."""
    match event:
        case ModelPublished():
            return Model(
                routes=event.routes,
                max_output_tokens=event.max_output_tokens,
                context_tokens=event.context_tokens,
                tokenizer=event.tokenizer,
                balance=event.balance or "weighted",
                limits=event.limits or UNLIMITED,
            )
        case ModelRouteChanged():
            return None if state is None else replace(state, routes=event.routes)
        case ModelWithdrawn():
            return None if state is None else replace(state, removed=True)
        case ModelBoundExceeded():
            return None if state is None else replace(state, bound_exceeded=True)


# ---------------------------------------------------------------- commands and decisions


class PublishModel(Struct, frozen=True, kw_only=True):
    """Publishes a model or replaces its terms."""

    routes: tuple[Route, ...]
    max_output_tokens: int
    context_tokens: int
    tokenizer: str | None = None
    balance: Balance = "weighted"
    limits: Limits = UNLIMITED


class WithdrawModel(Struct, frozen=True, kw_only=True):
    reason: str | None = None


class ReportExceededBound(Struct, frozen=True, kw_only=True):
    request: str
    cost: int
    hold: int


Command = PublishModel | WithdrawModel | ReportExceededBound


def decide(command: Command, state: Model | None) -> list[Event]:
    """The events of `command`; none if it is so already. Raises `NotFound`, `Invalid`."""
    match command:
        case PublishModel():
            return _published(_checked(command), state)
        case WithdrawModel():
            if state is None:
                raise NotFound("no such model")
            return [] if state.removed else [ModelWithdrawn(reason=reason_text(command.reason))]
        case ReportExceededBound():
            if state is None or state.removed or state.bound_exceeded:
                return []
            return [ModelBoundExceeded(request=command.request, cost=command.cost, hold=command.hold)]


def _published(terms: ModelPublished, state: Model | None) -> list[Event]:
    published = evolve(None, terms)
    if state is None or state.removed or state.bound_exceeded:
        return [terms]
    if published == state:
        return []
    if published == replace(state, routes=terms.routes):
        return [ModelRouteChanged(routes=terms.routes, before=state.routes)]
    return [terms]


def _checked(command: PublishModel) -> ModelPublished:
    if not command.routes:
        raise invalid("routes", "must have at least one route")
    for number, route in enumerate(command.routes):
        at_least(0, route.weight, f"routes.{number}.weight")
        at_least(0, route.tier, f"routes.{number}.tier")
        if not 0 < len(route.upstream_model) <= 200 or not route.upstream_model.isprintable():
            raise invalid(f"routes.{number}.upstream_model", "must be 1 to 200 printable characters")
    for name in ("max_output_tokens", "context_tokens"):
        at_least(1, getattr(command, name), name)
        if getattr(command, name) > MOST_TOKENS:
            raise invalid(name, f"must be at most {MOST_TOKENS}")
    return ModelPublished(
        routes=command.routes,
        max_output_tokens=command.max_output_tokens,
        context_tokens=command.context_tokens,
        tokenizer=command.tokenizer,
        balance=UNSET if command.balance == "weighted" else command.balance,
        limits=UNSET if command.limits == UNLIMITED else checked(command.limits),
    )
