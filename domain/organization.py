"""Organizations: the tenants. Everything an application does belongs to one, and closes with it."""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from domain.errors import Conflict, NotFound, invalid
from domain.inputs import display_name, model_id, reason_text
from domain.limits import OrganizationLimits, checked
from domain.period import parse_timezone

KIND = "org"

UNLIMITED = OrganizationLimits()

BudgetStatus = Literal[402, 429]
"""The HTTP status of a request that an exhausted budget refuses."""

FallbackReason = Literal["context_window", "budget_exhausted", "soft_budget"]
"""The request is too long for the model; a hard budget cannot pay for it; a soft budget in its scope is past its limit."""

MOST_FALLBACKS = 1000


class Fallback(Struct, frozen=True, kw_only=True):
    """Requests for `model` are admitted as requests for `to` instead, for that reason."""

    model: str
    reason: FallbackReason
    to: str


# ---------------------------------------------------------------- events: stored format


class OrganizationCreated(Struct, frozen=True, kw_only=True):
    name: str
    timezone: str
    budget_status: BudgetStatus


class OrganizationRenamed(Struct, frozen=True, kw_only=True):
    name: str
    before: str


class OrganizationSettings(Struct, frozen=True, kw_only=True):
    timezone: str
    budget_status: BudgetStatus


class OrganizationSettingsChanged(Struct, frozen=True, kw_only=True):
    settings: OrganizationSettings
    before: OrganizationSettings


class OrganizationLimitsChanged(Struct, frozen=True, kw_only=True):
    limits: OrganizationLimits
    before: OrganizationLimits


class OrganizationFallbacksChanged(Struct, frozen=True, kw_only=True):
    fallbacks: tuple[Fallback, ...]
    before: tuple[Fallback, ...]


class OrganizationSuspended(Struct, frozen=True, kw_only=True):
    reason: str | None


class OrganizationReinstated(Struct, frozen=True, kw_only=True):
    reason: str | None


class OrganizationClosed(Struct, frozen=True, kw_only=True):
    reason: str | None


Event = (
    OrganizationCreated
    | OrganizationRenamed
    | OrganizationSettingsChanged
    | OrganizationLimitsChanged
    | OrganizationFallbacksChanged
    | OrganizationSuspended
    | OrganizationReinstated
    | OrganizationClosed
)

EVENTS: tuple[type[Struct], ...] = (
    OrganizationCreated,
    OrganizationRenamed,
    OrganizationSettingsChanged,
    OrganizationLimitsChanged,
    OrganizationFallbacksChanged,
    OrganizationSuspended,
    OrganizationReinstated,
    OrganizationClosed,
)


# ---------------------------------------------------------------- state


class Organization(Struct, frozen=True, kw_only=True):
    """`timezone` is what budgets of the organization take when they name none."""

    name: str
    timezone: str
    budget_status: BudgetStatus
    limits: OrganizationLimits = UNLIMITED
    status: Literal["active", "suspended", "closed"] = "active"
    fallbacks: tuple[Fallback, ...] = ()

    @property
    def fallbacks_by_model(self) -> dict[str, dict[FallbackReason, str]]:
        """Of a model, which other one serves its requests, by the reason."""
        found: dict[str, dict[FallbackReason, str]] = {}
        for one in self.fallbacks:
            found.setdefault(one.model, {})[one.reason] = one.to
        return found

    @property
    def removed(self) -> bool:
        """Closed for good: its id is never used again."""
        return self.status == "closed"


def evolve(state: Organization | None, event: Event) -> Organization | None:
    """The state after `event`."""
    if isinstance(event, OrganizationCreated):
        return Organization(name=event.name, timezone=event.timezone, budget_status=event.budget_status)
    if state is None:
        return None
    match event:
        case OrganizationRenamed():
            return replace(state, name=event.name)
        case OrganizationSettingsChanged():
            return replace(state, timezone=event.settings.timezone, budget_status=event.settings.budget_status)
        case OrganizationLimitsChanged():
            return replace(state, limits=event.limits)
        case OrganizationFallbacksChanged():
            return replace(state, fallbacks=event.fallbacks)
        case OrganizationSuspended():
            return replace(state, status="suspended")
        case OrganizationReinstated():
            return replace(state, status="active")
        case OrganizationClosed():
            return replace(state, status="closed")


# ---------------------------------------------------------------- commands and decisions


class CreateOrganization(Struct, frozen=True, kw_only=True):
    name: str
    timezone: str = "UTC"
    budget_status: BudgetStatus = 402
    limits: OrganizationLimits = UNLIMITED


class ChangeOrganization(Struct, frozen=True, kw_only=True):
    """None leaves a field as it is."""

    name: str | None = None
    timezone: str | None = None
    budget_status: BudgetStatus | None = None
    limits: OrganizationLimits | None = None
    fallbacks: tuple[Fallback, ...] | None = None


class SuspendOrganization(Struct, frozen=True, kw_only=True):
    reason: str | None = None


class ReinstateOrganization(Struct, frozen=True, kw_only=True):
    reason: str | None = None


class CloseOrganization(Struct, frozen=True, kw_only=True):
    reason: str | None = None


Command = CreateOrganization | ChangeOrganization | SuspendOrganization | ReinstateOrganization | CloseOrganization


def decide(command: Command, state: Organization | None) -> list[Event]:
    """The events of `command`; none if it is so already.

    Raises `Conflict` (``already_exists``, ``organization_closed``), `NotFound`, `Invalid`.
    """
    if isinstance(command, CreateOrganization):
        if state is not None:
            raise Conflict("an organization with this id exists, or existed", code="already_exists")
        return _created(command)
    if state is None:
        raise NotFound("no such organization")
    if isinstance(command, CloseOrganization):
        return [] if state.removed else [OrganizationClosed(reason=reason_text(command.reason))]
    if state.removed:
        raise Conflict("the organization is closed", code="organization_closed")
    match command:
        case ChangeOrganization():
            return _changed(command, state)
        case SuspendOrganization():
            return [] if state.status == "suspended" else [OrganizationSuspended(reason=reason_text(command.reason))]
        case ReinstateOrganization():
            return [] if state.status == "active" else [OrganizationReinstated(reason=reason_text(command.reason))]


def _created(command: CreateOrganization) -> list[Event]:
    created = OrganizationCreated(
        name=display_name(command.name),
        timezone=parse_timezone(command.timezone).key,
        budget_status=command.budget_status,
    )
    return [created, *_limited(command.limits, UNLIMITED)]


def _changed(command: ChangeOrganization, state: Organization) -> list[Event]:
    events: list[Event] = []
    if command.name is not None and command.name != state.name:
        events.append(OrganizationRenamed(name=display_name(command.name), before=state.name))
    before = OrganizationSettings(timezone=state.timezone, budget_status=state.budget_status)
    settings = OrganizationSettings(
        timezone=state.timezone if command.timezone is None else parse_timezone(command.timezone).key,
        budget_status=command.budget_status or state.budget_status,
    )
    if settings != before:
        events.append(OrganizationSettingsChanged(settings=settings, before=before))
    fallbacks = state.fallbacks if command.fallbacks is None else _checked(command.fallbacks)
    if fallbacks != state.fallbacks:
        events.append(OrganizationFallbacksChanged(fallbacks=fallbacks, before=state.fallbacks))
    return events + _limited(state.limits if command.limits is None else command.limits, state.limits)


def _limited(limits: OrganizationLimits, before: OrganizationLimits) -> list[Event]:
    return [] if limits == before else [OrganizationLimitsChanged(limits=checked(limits), before=before)]


def _checked(fallbacks: tuple[Fallback, ...]) -> tuple[Fallback, ...]:
    """In one order. Models need not exist: what is not there when it is needed is no fallback."""
    if len(fallbacks) > MOST_FALLBACKS:
        raise invalid("fallbacks", f"must be at most {MOST_FALLBACKS}")
    for one in fallbacks:
        field = f"fallbacks.{one.model}"
        model_id(one.model, field)
        if model_id(one.to, f"{field}.{one.reason}") == one.model:
            raise invalid(f"{field}.{one.reason}", "must be another model")
    return tuple(sorted(fallbacks, key=lambda one: (one.model, one.reason)))
