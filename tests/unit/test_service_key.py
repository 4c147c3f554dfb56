"""Service keys: issued, rotated with a grace, limited, revoked for good."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain import service_key
from domain.limits import Limits
from domain.service_key import (
    ApiKeyIssued,
    ApiKeyLimitsChanged,
    ApiKeyRevoked,
    ApiKeyRotated,
    ChangeKeyRights,
    IssueKey,
    KeyRights,
    RevokeKey,
    RotateKey,
)
from tests.unit.decider import given

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ISSUED = ApiKeyIssued(
    name="k", project="main", user=None, rights=KeyRights(), expires_at=None, hash="h1", redacted="th_sk_…aaaa"
)


def rotate(hash_: str, grace: int, at: datetime = NOON) -> RotateKey:
    return RotateKey(hash=hash_, redacted="th_sk_…bbbb", grace_seconds=grace, at=at)


def rotated(hash_: str, *superseded: tuple[str, datetime]) -> ApiKeyRotated:
    return ApiKeyRotated(hash=hash_, redacted="th_sk_…bbbb", superseded=superseded)


def test_a_key_is_issued() -> None:
    """Its hash is valid until revoked."""
    command = IssueKey(name="k", project="main", hash="h1", redacted="th_sk_…aaaa", at=NOON)
    issued = given(service_key).when(command).then(ISSUED)
    assert issued.state.hashes == (("h1", None),)
    issued.when(command).then_refused("already_exists")


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"expires_at": NOON}, "expires_at"),
        ({"name": ""}, "name"),
        ({"rights": KeyRights(models=())}, "models"),
        ({"rights": KeyRights(models=("UPPER",))}, "models"),
        ({"rights": KeyRights(limits=Limits(requests_per_minute=0))}, "limits.requests_per_minute"),
        ({"rights": KeyRights(limits=Limits(tokens_per_minute=-1))}, "limits.tokens_per_minute"),
    ],
)
def test_bad_terms_name_the_field(terms: dict[str, object], field: str) -> None:
    """`invalid_field`."""
    basic: dict[str, Any] = {"name": "k", "project": "p", "hash": "h", "redacted": "r", "at": NOON}
    command = IssueKey(**{**basic, **terms})
    given(service_key).when(command).then_refused("invalid_field", field)


def test_a_rotated_key_lives_out_its_grace() -> None:
    """Both hashes are valid until the grace ends, the new one without end."""
    ends = NOON + timedelta(seconds=60)
    after = given(service_key, ISSUED).when(rotate("h2", 60)).then(rotated("h2", ("h1", ends)))
    assert after.state.hashes == (("h2", None), ("h1", ends))
    assert after.state.redacted == "th_sk_…bbbb"


def test_without_grace_the_old_hash_is_gone() -> None:
    """A leaked key ends at once, with those whose grace is still running."""
    twice = given(service_key, ISSUED, rotated("h2", ("h1", NOON + timedelta(hours=1))))
    assert twice.when(rotate("h3", 0)).then(rotated("h3")).state.hashes == (("h3", None),)


def test_a_second_rotation_never_prolongs_a_grace() -> None:
    """Hashes whose grace is over are forgotten, running ones keep their end or get an earlier one."""
    soon, later = NOON + timedelta(minutes=1), NOON + timedelta(minutes=10)
    state = given(service_key, ISSUED, rotated("h3", ("h2", soon), ("h1", NOON)))
    state.when(rotate("h4", 600)).then(rotated("h4", ("h3", later), ("h2", soon)))


@pytest.mark.parametrize("grace", [-1, 30 * 86400 + 1])
def test_a_grace_has_bounds(grace: int) -> None:
    """From none to thirty days."""
    given(service_key, ISSUED).when(rotate("h2", grace)).then_refused("invalid_field", "grace_seconds")


def test_changed_rights_say_what_was_before() -> None:
    """The same rights again change nothing."""
    rights = KeyRights(models=("m",), limits=Limits(concurrent=3))
    event = ApiKeyLimitsChanged(rights=rights, before=KeyRights())
    changed = given(service_key, ISSUED).when(ChangeKeyRights(rights=rights)).then(event)
    assert changed.state.rights == rights
    changed.when(ChangeKeyRights(rights=rights)).then_nothing_happened()


def test_revoked_is_final() -> None:
    """No hash is left; revoking again changes nothing, everything else is refused."""
    revoked = given(service_key, ISSUED).when(RevokeKey(reason="leak")).then(ApiKeyRevoked(reason="leak"))
    assert (revoked.state.revoked, revoked.state.hashes) == (True, ())
    revoked.when(RevokeKey()).then_nothing_happened()
    for command in (rotate("h2", 0), ChangeKeyRights(rights=KeyRights())):
        revoked.when(command).then_refused("key_revoked")
        given(service_key).when(command).then_refused("not_found")
