"""Users: invited, joined, suspended, reinstated, removed for good."""

import pytest

from domain import user
from domain.user import (
    AcceptInvitation,
    ChangeUser,
    InviteUser,
    ReinstateUser,
    RemoveUser,
    SuspendUser,
    UserInvited,
    UserJoined,
    UserReinstated,
    UserRemoved,
    UserRoleChanged,
    UserSuspended,
)
from tests.unit.decider import given

INVITED = UserInvited(email="ann@example.com", role="member")


def test_a_user_is_invited_and_joins() -> None:
    """Accepting twice changes nothing."""
    invited = given(user).when(InviteUser(email="ann@example.com")).then(INVITED)
    assert invited.state.status == "invited"
    joined = invited.when(AcceptInvitation()).then(UserJoined())
    assert joined.state.status == "active"
    joined.when(AcceptInvitation()).then_nothing_happened()
    joined.when(InviteUser(email="ann@example.com")).then_refused("already_exists")


@pytest.mark.parametrize("email", ["", "ann", "a@b@c", "a b@c", "a@b\n"])
def test_an_address_is_an_address(email: str) -> None:
    """`invalid_field` naming `email`."""
    given(user).when(InviteUser(email=email)).then_refused("invalid_field", "email")


def test_a_role_change_says_what_was_before() -> None:
    """The same role again changes nothing."""
    event = UserRoleChanged(role="org-admin", before="member")
    changed = given(user, INVITED).when(ChangeUser(role="org-admin")).then(event)
    changed.when(ChangeUser(role="org-admin")).then_nothing_happened()


@pytest.mark.parametrize(("events", "status"), [((INVITED,), "invited"), ((INVITED, UserJoined()), "active")])
def test_a_reinstated_user_is_what_they_were(events: tuple[UserInvited], status: str) -> None:
    """Suspension forgets nothing; a suspended user cannot accept."""
    suspended = given(user, *events).when(SuspendUser(reason="r")).then(UserSuspended(reason="r"))
    assert suspended.state.status == "suspended"
    suspended.when(SuspendUser()).then_nothing_happened()
    suspended.when(AcceptInvitation()).then_refused("user_suspended")
    reinstated = suspended.when(ReinstateUser()).then(UserReinstated(reason=None))
    assert reinstated.state.status == status
    reinstated.when(ReinstateUser()).then_nothing_happened()


def test_removed_is_final() -> None:
    """Removing again changes nothing, everything else is refused; who never was is not found."""
    removed = given(user, INVITED).when(RemoveUser()).then(UserRemoved(reason=None))
    assert (removed.state.removed, removed.state.status) == (True, "removed")
    removed.when(RemoveUser()).then_nothing_happened()
    for command in (AcceptInvitation(), ChangeUser(role="member"), SuspendUser(), ReinstateUser()):
        removed.when(command).then_refused("user_removed")
        given(user).when(command).then_refused("not_found")
