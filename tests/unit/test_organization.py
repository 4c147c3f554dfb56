"""Organizations: created, renamed, suspended, reinstated, closed for good."""

import pytest

from domain import organization
from domain.organization import (
    ChangeOrganization,
    CloseOrganization,
    Command,
    CreateOrganization,
    Fallback,
    OrganizationClosed,
    OrganizationCreated,
    OrganizationFallbacksChanged,
    OrganizationReinstated,
    OrganizationRenamed,
    OrganizationSettings,
    OrganizationSettingsChanged,
    OrganizationSuspended,
    ReinstateOrganization,
    SuspendOrganization,
)
from tests.unit.decider import given

CREATED = OrganizationCreated(name="Acme", timezone="UTC", budget_status=402)
SUSPENDED = OrganizationSuspended(reason="late")
CLOSED = OrganizationClosed(reason=None)


def test_an_organization_is_created() -> None:
    """With the defaults of who says nothing else."""
    given(organization).when(CreateOrganization(name="Acme")).then(CREATED)


@pytest.mark.parametrize("events", [(CREATED,), (CREATED, CLOSED)])
def test_an_id_is_used_once(events: tuple[OrganizationCreated]) -> None:
    """Even after closing: facts of the first one name it for ever."""
    given(organization, *events).when(CreateOrganization(name="Other")).then_refused("already_exists")


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (CreateOrganization(name=""), "name"),
        (CreateOrganization(name="a\nb"), "name"),
        (CreateOrganization(name="a" * 201), "name"),
        (CreateOrganization(name="Acme", timezone="Mars/Olympus"), "timezone"),
    ],
)
def test_bad_terms_name_the_field(command: Command, field: str) -> None:
    """`invalid_field`."""
    given(organization).when(command).then_refused("invalid_field", field)


def test_a_change_says_what_was_before() -> None:
    """One event for the name, one for the settings, none for what stays."""
    given(organization, CREATED).when(ChangeOrganization(name="Acme Inc", budget_status=429)).then(
        OrganizationRenamed(name="Acme Inc", before="Acme"),
        OrganizationSettingsChanged(
            settings=OrganizationSettings(timezone="UTC", budget_status=429),
            before=OrganizationSettings(timezone="UTC", budget_status=402),
        ),
    ).when(ChangeOrganization(name="Acme Inc", timezone="UTC", budget_status=429)).then_nothing_happened()


def test_suspended_and_reinstated_once() -> None:
    """Repeating either changes nothing."""
    suspended = given(organization, CREATED).when(SuspendOrganization(reason="late")).then(SUSPENDED)
    suspended.when(SuspendOrganization(reason="again")).then_nothing_happened()
    reinstated = suspended.when(ReinstateOrganization()).then(OrganizationReinstated(reason=None))
    reinstated.when(ReinstateOrganization()).then_nothing_happened()


def test_closed_is_final() -> None:
    """Closing again changes nothing, everything else is refused."""
    closed = given(organization, CREATED, SUSPENDED).when(CloseOrganization()).then(CLOSED)
    assert closed.state.removed
    closed.when(CloseOrganization()).then_nothing_happened()
    closed.when(ReinstateOrganization()).then_refused("organization_closed")
    closed.when(ChangeOrganization(name="x")).then_refused("organization_closed")


def test_what_never_was_is_not_found() -> None:
    """Every command but creating."""
    for command in (ChangeOrganization(name="x"), SuspendOrganization(), ReinstateOrganization(), CloseOrganization()):
        given(organization).when(command).then_refused("not_found")


# -- fallbacks

CHEAPER = Fallback(model="large", reason="budget_exhausted", to="small")
LONGER = Fallback(model="large", reason="context_window", to="long")


def test_fallbacks_are_set_all_at_once() -> None:
    """In one order, whatever the order they come in; the same again changes nothing, none takes them away."""
    made = given(organization, CREATED).when(ChangeOrganization(fallbacks=(LONGER, CHEAPER)))
    then = made.then(OrganizationFallbacksChanged(fallbacks=(CHEAPER, LONGER), before=()))
    assert then.state.fallbacks == (CHEAPER, LONGER)
    then.when(ChangeOrganization(fallbacks=(CHEAPER, LONGER))).then_nothing_happened()
    then.when(ChangeOrganization(name="Acme")).then_nothing_happened()
    gone = then.when(ChangeOrganization(fallbacks=()))
    gone.then(OrganizationFallbacksChanged(fallbacks=(), before=(CHEAPER, LONGER)))


@pytest.mark.parametrize(
    ("fallbacks", "field"),
    [
        ((Fallback(model="Not A Model", reason="soft_budget", to="m"),), "fallbacks.Not A Model"),
        ((Fallback(model="m", reason="soft_budget", to=""),), "fallbacks.m.soft_budget"),
        ((Fallback(model="m", reason="soft_budget", to="m"),), "fallbacks.m.soft_budget"),
        (tuple(Fallback(model=f"m{n}", reason="soft_budget", to="m") for n in range(1001)), "fallbacks"),
    ],
)
def test_a_bad_fallback_names_the_field(fallbacks: tuple[Fallback, ...], field: str) -> None:
    """`invalid_field`."""
    given(organization, CREATED).when(ChangeOrganization(fallbacks=fallbacks)).then_refused("invalid_field", field)
