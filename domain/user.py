"""Users: people of an organization. Service keys and budgets can be tied to one."""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from domain.errors import Conflict, NotFound
from domain.inputs import email_address, reason_text
from domain.limits import UNLIMITED, Limits, checked

KIND = "user"

UserRole = Literal["member", "org-viewer", "org-billing", "org-admin"]


# ---------------------------------------------------------------- events: stored format


class UserInvited(Struct, frozen=True, kw_only=True):
    email: str
    role: UserRole


class UserJoined(Struct, frozen=True, kw_only=True):
    pass


class UserRoleChanged(Struct, frozen=True, kw_only=True):
    role: UserRole
    before: UserRole


class UserLimitsChanged(Struct, frozen=True, kw_only=True):
    limits: Limits
    before: Limits


class UserSuspended(Struct, frozen=True, kw_only=True):
    reason: str | None


class UserReinstated(Struct, frozen=True, kw_only=True):
    reason: str | None


class UserRemoved(Struct, frozen=True, kw_only=True):
    reason: str | None


Event = UserInvited | UserJoined | UserRoleChanged | UserLimitsChanged | UserSuspended | UserReinstated | UserRemoved

EVENTS: tuple[type[Struct], ...] = (
    UserInvited,
    UserJoined,
    UserRoleChanged,
    UserLimitsChanged,
    UserSuspended,
    UserReinstated,
    UserRemoved,
)


# ---------------------------------------------------------------- state


class User(Struct, frozen=True, kw_only=True):
    """`joined` outlives a suspension: who was reinstated is what they were before."""

    email: str
    role: UserRole
    limits: Limits = UNLIMITED
    joined: bool = False
    suspended: bool = False
    removed: bool = False

    @property
    def status(self) -> Literal["invited", "active", "suspended", "removed"]:
        """One word for where the user stands."""
        if self.removed:
            return "removed"
        if self.suspended:
            return "suspended"
        return "active" if self.joined else "invited"


def evolve(state: User | None, event: Event) -> User | None:
    """The state after `event`."""
    if isinstance(event, UserInvited):
        return User(email=event.email, role=event.role)
    if state is None:
        return None
    match event:
        case UserJoined():
            return replace(state, joined=True)
        case UserRoleChanged():
            return replace(state, role=event.role)
        case UserLimitsChanged():
            return replace(state, limits=event.limits)
        case UserSuspended():
            return replace(state, suspended=True)
        case UserReinstated():
            return replace(state, suspended=False)
        case UserRemoved():
            return replace(state, removed=True)


# ---------------------------------------------------------------- commands and decisions


class InviteUser(Struct, frozen=True, kw_only=True):
    email: str
    role: UserRole = "member"
    limits: Limits = UNLIMITED


class AcceptInvitation(Struct, frozen=True, kw_only=True):
    pass


class ChangeUser(Struct, frozen=True, kw_only=True):
    """None leaves a field as it is."""

    role: UserRole | None = None
    limits: Limits | None = None


class SuspendUser(Struct, frozen=True, kw_only=True):
    reason: str | None = None


class ReinstateUser(Struct, frozen=True, kw_only=True):
    reason: str | None = None


class RemoveUser(Struct, frozen=True, kw_only=True):
    reason: str | None = None


Command = InviteUser | AcceptInvitation | ChangeUser | SuspendUser | ReinstateUser | RemoveUser


def decide(command: Command, state: User | None) -> list[Event]:
    """The events of `command`; none if it is so already.

    Raises `Conflict` (``already_exists``, ``user_removed``, ``user_suspended``), `NotFound`, `Invalid`.
    """
    if isinstance(command, InviteUser):
        if state is not None:
            raise Conflict("a user with this id exists, or existed, in the organization", code="already_exists")
        invited = UserInvited(email=email_address(command.email), role=command.role)
        return [invited, *_limited(command.limits, UNLIMITED)]
    if state is None:
        raise NotFound("no such user")
    if isinstance(command, RemoveUser):
        return [] if state.removed else [UserRemoved(reason=reason_text(command.reason))]
    if state.removed:
        raise Conflict("the user was removed", code="user_removed")
    match command:
        case AcceptInvitation():
            if state.suspended:
                raise Conflict("the user is suspended", code="user_suspended")
            return [] if state.joined else [UserJoined()]
        case ChangeUser():
            return _changed(command, state)
        case SuspendUser():
            return [] if state.suspended else [UserSuspended(reason=reason_text(command.reason))]
        case ReinstateUser():
            return [UserReinstated(reason=reason_text(command.reason))] if state.suspended else []


def _changed(command: ChangeUser, state: User) -> list[Event]:
    events: list[Event] = []
    if command.role is not None and command.role != state.role:
        events.append(UserRoleChanged(role=command.role, before=state.role))
    return events + _limited(state.limits if command.limits is None else command.limits, state.limits)


def _limited(limits: Limits, before: Limits) -> list[Event]:
    return [] if limits == before else [UserLimitsChanged(limits=checked(limits), before=before)]
