"""Paths of the APIs."""

from urllib.parse import quote


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")


def org_path(org: str) -> str:
    """An organization in the command API."""
    return f"/admin/v1/orgs/{segment(org)}"


def read_path(org: str) -> str:
    """An organization in the read API."""
    return f"/read/v1/orgs/{segment(org)}"
