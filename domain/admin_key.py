"""Admin keys: what people and scripts authenticate with at the command and read APIs. Only keyed hashes are known here."""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from domain.errors import Conflict, NotFound, invalid
from domain.inputs import display_name, reason_text

KIND = "admin-key"

AdminRole = Literal["platform-admin", "org-admin", "org-billing", "org-viewer"]
"""`platform-admin` may everything everywhere; the others see one organization only."""


# ---------------------------------------------------------------- events: stored format


class AdminKeyIssued(Struct, frozen=True, kw_only=True):
    """`hash` is the keyed hash (hex), `redacted` what people may see of the key."""

    name: str
    role: AdminRole
    org: str | None
    hash: str
    redacted: str


class AdminKeyRevoked(Struct, frozen=True, kw_only=True):
    reason: str | None


Event = AdminKeyIssued | AdminKeyRevoked

EVENTS: tuple[type[Struct], ...] = (AdminKeyIssued, AdminKeyRevoked)


# ---------------------------------------------------------------- state


class AdminKey(Struct, frozen=True, kw_only=True):
    """`org` is None for platform admins."""

    name: str
    role: AdminRole
    org: str | None
    hash: str
    redacted: str
    revoked: bool = False

    @property
    def removed(self) -> bool:
        """Never: a revoked key stays visible."""
        return False


def evolve(state: AdminKey | None, event: Event) -> AdminKey | None:
    """The state after `event`."""
    match event:
        case AdminKeyIssued():
            return AdminKey(name=event.name, role=event.role, org=event.org, hash=event.hash, redacted=event.redacted)
        case AdminKeyRevoked():
            return None if state is None else replace(state, revoked=True)


# ---------------------------------------------------------------- commands and decisions


class IssueAdminKey(Struct, frozen=True, kw_only=True):
    name: str
    role: AdminRole
    org: str | None = None
    hash: str
    redacted: str


class RevokeAdminKey(Struct, frozen=True, kw_only=True):
    reason: str | None = None


Command = IssueAdminKey | RevokeAdminKey


def decide(command: Command, state: AdminKey | None) -> list[Event]:
    """The events of `command`; none if it is so already. Raises `Conflict` (``already_exists``), `NotFound`, `Invalid`."""
    match command:
        case IssueAdminKey():
            if state is not None:
                raise Conflict("an admin key with this id exists, or existed", code="already_exists")
            if (command.org is None) != (command.role == "platform-admin"):
                raise invalid("org", "must be given for every role but platform-admin, and only there")
            return [
                AdminKeyIssued(
                    name=display_name(command.name),
                    role=command.role,
                    org=command.org,
                    hash=command.hash,
                    redacted=command.redacted,
                )
            ]
        case RevokeAdminKey():
            if state is None:
                raise NotFound("no such admin key")
            return [] if state.revoked else [AdminKeyRevoked(reason=reason_text(command.reason))]
