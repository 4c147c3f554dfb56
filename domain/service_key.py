"""Service keys: what applications authenticate with. Only keyed hashes are known here, never a key."""

from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from domain.errors import Conflict, NotFound, invalid
from domain.inputs import after, display_name, model_list, reason_text
from domain.limits import UNLIMITED, Limits, checked

KIND = "key"

MAX_GRACE = timedelta(days=30)
"""A rotated key's old secret stays valid no longer than this."""


class KeyRights(Struct, frozen=True, kw_only=True):
    """What a key may do: the models (None: all) and how much of them."""

    models: tuple[str, ...] | None = None
    limits: Limits = UNLIMITED


# ---------------------------------------------------------------- events: stored format


class ApiKeyIssued(Struct, frozen=True, kw_only=True):
    """`hash` is the keyed hash (hex), `redacted` what people may see of the key."""

    name: str
    project: str
    user: str | None
    rights: KeyRights
    expires_at: datetime | None
    hash: str
    redacted: str


class ApiKeyRotated(Struct, frozen=True, kw_only=True):
    """`hash` replaces all others, but for the `superseded` (hash, valid until), which live out their grace."""

    hash: str
    redacted: str
    superseded: tuple[tuple[str, datetime], ...]


class ApiKeyLimitsChanged(Struct, frozen=True, kw_only=True):
    rights: KeyRights
    before: KeyRights


class ApiKeyRevoked(Struct, frozen=True, kw_only=True):
    reason: str | None


Event = ApiKeyIssued | ApiKeyRotated | ApiKeyLimitsChanged | ApiKeyRevoked

EVENTS: tuple[type[Struct], ...] = (ApiKeyIssued, ApiKeyRotated, ApiKeyLimitsChanged, ApiKeyRevoked)


# ---------------------------------------------------------------- state


class ServiceKey(Struct, frozen=True, kw_only=True):
    """`hashes` are the valid keyed hashes (hex) with the time each ends (None: not by itself); the first is current.

    Once revoked there are none.
    """

    name: str
    project: str
    user: str | None
    models: tuple[str, ...] | None
    limits: Limits
    expires_at: datetime | None
    hashes: tuple[tuple[str, datetime | None], ...]
    redacted: str
    revoked: bool = False

    @property
    def removed(self) -> bool:
        """Never: a revoked key stays visible."""
        return False

    @property
    def rights(self) -> KeyRights:
        return KeyRights(models=self.models, limits=self.limits)


def evolve(state: ServiceKey | None, event: Event) -> ServiceKey | None:
    """The state after `event`."""
    if isinstance(event, ApiKeyIssued):
        return ServiceKey(
            name=event.name,
            project=event.project,
            user=event.user,
            models=event.rights.models,
            limits=event.rights.limits,
            expires_at=event.expires_at,
            hashes=((event.hash, None),),
            redacted=event.redacted,
        )
    if state is None:
        return None
    match event:
        case ApiKeyRotated():
            return replace(state, hashes=((event.hash, None), *event.superseded), redacted=event.redacted)
        case ApiKeyLimitsChanged():
            return replace(state, models=event.rights.models, limits=event.rights.limits)
        case ApiKeyRevoked():
            return replace(state, revoked=True, hashes=())


# ---------------------------------------------------------------- commands and decisions


class IssueKey(Struct, frozen=True, kw_only=True):
    name: str
    project: str
    user: str | None = None
    rights: KeyRights = KeyRights()
    expires_at: datetime | None = None
    hash: str
    redacted: str
    at: datetime


class RotateKey(Struct, frozen=True, kw_only=True):
    """The old secret stays valid for `grace_seconds` after `at`."""

    hash: str
    redacted: str
    grace_seconds: int = 0
    at: datetime


class ChangeKeyRights(Struct, frozen=True, kw_only=True):
    rights: KeyRights


class RevokeKey(Struct, frozen=True, kw_only=True):
    reason: str | None = None


Command = IssueKey | RotateKey | ChangeKeyRights | RevokeKey


def decide(command: Command, state: ServiceKey | None) -> list[Event]:
    """The events of `command`; none if it is so already.

    Raises `Conflict` (``already_exists``, ``key_revoked``), `NotFound`, `Invalid`.
    """
    if isinstance(command, IssueKey):
        return [_issued(command, state)]
    if state is None:
        raise NotFound("no such key")
    if isinstance(command, RevokeKey):
        return [] if state.revoked else [ApiKeyRevoked(reason=reason_text(command.reason))]
    if state.revoked:
        raise Conflict("the key is revoked", code="key_revoked")
    match command:
        case RotateKey():
            return [_rotated(command, state)]
        case ChangeKeyRights():
            rights = _checked(command.rights)
            return [] if rights == state.rights else [ApiKeyLimitsChanged(rights=rights, before=state.rights)]


def _issued(command: IssueKey, state: ServiceKey | None) -> ApiKeyIssued:
    if state is not None:
        raise Conflict("a key with this id exists, or existed", code="already_exists")
    after(command.at, command.expires_at, "expires_at")
    return ApiKeyIssued(
        name=display_name(command.name),
        project=command.project,
        user=command.user,
        rights=_checked(command.rights),
        expires_at=command.expires_at,
        hash=command.hash,
        redacted=command.redacted,
    )


def _rotated(command: RotateKey, state: ServiceKey) -> ApiKeyRotated:
    if not 0 <= command.grace_seconds <= MAX_GRACE.total_seconds():
        raise invalid("grace_seconds", f"must be between 0 and {int(MAX_GRACE.total_seconds())}")
    ends = command.at + timedelta(seconds=command.grace_seconds)
    superseded = tuple((hash_, ends if until is None else min(until, ends)) for hash_, until in state.hashes)
    return ApiKeyRotated(
        hash=command.hash,
        redacted=command.redacted,
        superseded=tuple((hash_, until) for hash_, until in superseded if until > command.at),
    )


def _checked(rights: KeyRights) -> KeyRights:
    return KeyRights(models=model_list(rights.models), limits=checked(rights.limits))
