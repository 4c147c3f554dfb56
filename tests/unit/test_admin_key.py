"""Admin keys: issued for the platform or one organization, revoked for good."""

import pytest

from domain import admin_key
from domain.admin_key import AdminKeyIssued, AdminKeyRevoked, AdminRole, IssueAdminKey, RevokeAdminKey
from tests.unit.decider import given

ISSUED = AdminKeyIssued(name="ops", role="platform-admin", org=None, hash="h", redacted="r")


def test_an_admin_key_is_issued_and_revoked_once() -> None:
    """Revoking again changes nothing; what never was is not found."""
    command = IssueAdminKey(name="ops", role="platform-admin", hash="h", redacted="r")
    issued = given(admin_key).when(command).then(ISSUED)
    issued.when(command).then_refused("already_exists")
    revoked = issued.when(RevokeAdminKey()).then(AdminKeyRevoked(reason=None))
    revoked.when(RevokeAdminKey()).then_nothing_happened()
    given(admin_key).when(RevokeAdminKey()).then_refused("not_found")


@pytest.mark.parametrize(("role", "org"), [("platform-admin", "acme"), ("org-admin", None), ("org-viewer", None)])
def test_a_role_and_its_organization_belong_together(role: AdminRole, org: str | None) -> None:
    """Platform admins have none, all others one."""
    command = IssueAdminKey(name="x", role=role, org=org, hash="h", redacted="r")
    given(admin_key).when(command).then_refused("invalid_field", "org")
