"""Rules that span aggregates: what must exist for a command to make sense. Each reads its streams through `Changes`, so
the command is decided again if one of them moves before it is appended."""

from typing import Any

from commands.handling import Changes
from domain import backend, budget, organization, project, service_key, user
from domain.errors import NotFound, invalid
from domain.ids import PLATFORM
from domain.organization import Organization


def open_organization(changes: Changes, org: str) -> Organization:
    """The organization. Raises `NotFound` if it never was or is closed."""
    state: Organization | None = changes.state(org, organization.KIND, org)
    if state is None or state.removed:
        raise NotFound("no such organization")
    return state


def change(changes: Changes, org: str, kind: str, id: str, command: Any) -> Any:
    """Applies `command` to an aggregate of an open organization (or of the platform), at the version the caller saw."""
    if org != PLATFORM and kind != organization.KIND:
        open_organization(changes, org)
    changes.matched(org, kind, id)
    return changes.apply(org, kind, id, command)


def known_project(changes: Changes, org: str, id: str, field: str) -> None:
    """Raises `Invalid` naming `field` unless the project exists and is not closed."""
    state = changes.state(org, project.KIND, id)
    if state is None or state.removed:
        raise invalid(field, f"no such project: {id!r:.80}")


def known_user(changes: Changes, org: str, id: str, field: str) -> None:
    """Raises `Invalid` naming `field` unless the user exists and was not removed."""
    state = changes.state(org, user.KIND, id)
    if state is None or state.removed:
        raise invalid(field, f"no such user: {id!r:.80}")


def known_key(changes: Changes, org: str, id: str, field: str) -> None:
    """Raises `Invalid` naming `field` unless the service key exists and is not revoked."""
    state = changes.state(org, service_key.KIND, id)
    if state is None or state.revoked:
        raise invalid(field, f"no such service key: {id!r:.80}")


def known_backend(changes: Changes, id: str, field: str) -> None:
    """Raises `Invalid` naming `field` unless the backend exists."""
    if changes.state(PLATFORM, backend.KIND, id) is None:
        raise invalid(field, f"no such backend: {id!r:.80}")


def known_scope(changes: Changes, org: str, scope: budget.Scope) -> None:
    """Raises `Invalid` naming ``scope.id`` unless what a budget limits exists."""
    known = {"project": known_project, "user": known_user, "key": known_key}.get(scope.kind)
    if known is not None and scope.id is not None:
        known(changes, org, scope.id, "scope.id")
