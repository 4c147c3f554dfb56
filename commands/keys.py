"""Issuing and rotating keys. A key's text exists in the answer that hands it out and nowhere else."""

from datetime import datetime

from msgspec import Struct

from commands.handling import Changes
from commands.rules import change, known_project, known_user, open_organization
from domain import admin_key, service_key
from domain.admin_key import AdminKey, AdminRole, IssueAdminKey
from domain.credential import ADMIN, SERVICE, make_key, redact
from domain.errors import Conflict, NotFound, invalid
from domain.ids import PLATFORM
from domain.service_key import IssueKey, KeyRights, RotateKey, ServiceKey


class IssuedKey(Struct, frozen=True):
    """A service key with the secret that is shown once."""

    id: str
    state: ServiceKey
    secret: str


class IssuedAdminKey(Struct, frozen=True):
    """An admin key with the secret that is shown once."""

    id: str
    state: AdminKey
    secret: str


def issue_service_key(
    changes: Changes,
    org: str,
    *,
    name: str,
    project: str,
    user: str | None = None,
    rights: KeyRights | None = None,
    expires_at: datetime | None = None,
) -> IssuedKey:
    """A new service key of a project. Raises `Invalid` naming ``project`` or ``user`` if there is none such."""
    open_organization(changes, org)
    known_project(changes, org, project, "project")
    if user is not None:
        known_user(changes, org, user, "user")
    id, secret = changes.new_id("key"), make_key(SERVICE, changes.secrets.random(256))
    command = IssueKey(
        name=name,
        project=project,
        user=user,
        rights=rights or KeyRights(),
        expires_at=expires_at,
        hash=changes.secrets.hash(secret),
        redacted=redact(secret),
        at=changes.clock(),
    )
    return IssuedKey(id, changes.apply(org, service_key.KIND, id, command), secret)


def rotate_service_key(changes: Changes, org: str, id: str, grace_seconds: int) -> IssuedKey:
    """Another secret for a key; the old one stays valid for `grace_seconds`."""
    secret = make_key(SERVICE, changes.secrets.random(256))
    command = RotateKey(
        hash=changes.secrets.hash(secret), redacted=redact(secret), grace_seconds=grace_seconds, at=changes.clock()
    )
    return IssuedKey(id, change(changes, org, service_key.KIND, id, command), secret)


def issue_admin_key(changes: Changes, *, name: str, role: AdminRole, org: str | None = None) -> IssuedAdminKey:
    """A new admin key. Raises `Invalid` naming ``org`` if there is none such, or the role has none."""
    if org is not None:
        try:
            open_organization(changes, org)
        except NotFound as error:
            raise invalid("org", error.message) from None
    return register_admin_key(changes, make_key(ADMIN, changes.secrets.random(256)), name=name, role=role, org=org)


def register_admin_key(
    changes: Changes, secret: str, *, name: str, role: AdminRole, org: str | None = None
) -> IssuedAdminKey:
    """Makes `secret` an admin key."""
    id = changes.new_id("key")
    command = IssueAdminKey(name=name, role=role, org=org, hash=changes.secrets.hash(secret), redacted=redact(secret))
    return IssuedAdminKey(id, changes.apply(PLATFORM, admin_key.KIND, id, command), secret)


def revoke_admin_key(changes: Changes, id: str, reason: str | None) -> AdminKey:
    """Ends an admin key. Raises `Conflict` (``own_key``) for the key that asks: somebody must be left to ask."""
    if id == changes.request.actor:
        raise Conflict("an admin key cannot revoke itself; use another", code="own_key")
    state: AdminKey = change(changes, PLATFORM, admin_key.KIND, id, admin_key.RevokeAdminKey(reason=reason))
    return state
