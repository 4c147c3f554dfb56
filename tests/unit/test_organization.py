"""Organizations: created, renamed, suspended, reinstated, closed for good."""

import pytest

from domain import organization
from domain.organization import (
    ChangeOrganization,
    CloseOrganization,
    Command,
    CreateOrganization,
    OrganizationClosed,
    OrganizationCreated,
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
