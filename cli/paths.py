"""Paths of the APIs."""

from urllib.parse import quote

READ_SIDE = ("/read/", "/v1/organization/", "/v1/requests/")
READ_SIDE_OF_ADMIN = ("/admin/v1/projections", "/admin/v1/operations", "/admin/v1/parked", "/admin/v1/events")
"""What begins so is answered by the read side: for everybody, and for operators."""


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")


def org_path(org: str) -> str:
    """An organization in the command API."""
    return f"/admin/v1/orgs/{segment(org)}"


def read_path(org: str) -> str:
    """An organization in the read API."""
    return f"/read/v1/orgs/{segment(org)}"
