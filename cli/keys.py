"""``tollhouse key`` (service keys, for applications) and ``tollhouse admin-key``."""

from typing import Annotated, Any

import typer

from cli.limits import Concurrent, PerMinute, Tokens, limits_document
from cli.orgs import OrgOption, Reason
from cli.output import note
from cli.paths import org_path, segment
from cli.session import Effect, Session, command, noun

KEY_COLUMNS = ("id", "name", "project", "user", "redacted", "models", "limits", "expires_at", "revoked")
ADMIN_KEY_COLUMNS = ("id", "name", "role", "org", "redacted", "revoked")

Models = Annotated[
    list[str] | None, typer.Option("--model", help="A model it may use; repeatable.", show_default=False)
]
Expires = Annotated[str | None, typer.Option("--expires-at", help="RFC 3339.", show_default=False)]


def register(root: typer.Typer) -> None:
    """Adds the nouns to `root`."""
    _keys(noun(root, "key", "Service keys: what applications call the router with."))
    _admin_keys(noun(root, "admin-key", "Admin keys: what this command line and the APIs are used with."))


def _once(doc: Any) -> None:
    if isinstance(doc, dict) and "secret" in doc:
        note("the secret is shown this once: keep it now")


def _keys(app: typer.Typer) -> None:
    def path(session: Session, org: str | None, key: str) -> str:
        return f"{org_path(session.org(org))}/keys/{segment(key)}"

    @command(app, "create", Effect.CHANGES)
    def create(
        session: Session,
        name: str,
        project: Annotated[str, typer.Option("--project", show_default=False)],
        org: OrgOption = None,
        user: Annotated[
            str | None, typer.Option("--user", help="Whose requests these are.", show_default=False)
        ] = None,
        model: Models = None,
        requests_per_minute: PerMinute = None,
        tokens_per_minute: Tokens = None,
        concurrent: Concurrent = None,
        expires_at: Expires = None,
    ) -> None:
        """Issue a key; its secret is printed once."""
        body = {
            "name": name,
            "project": project,
            "user": user,
            "models": model or None,
            "limits": limits_document(requests_per_minute, tokens_per_minute, concurrent),
            "expires_at": expires_at,
        }
        _once(session.change("POST", f"{org_path(session.org(org))}/keys", body))

    @command(app, "list")
    def list_(session: Session, org: OrgOption = None) -> None:
        """List the keys of an organization."""
        session.list(f"{org_path(session.org(org))}/keys", KEY_COLUMNS)

    @command(app, "show")
    def show(session: Session, key: str, org: OrgOption = None) -> None:
        """Show a key."""
        session.show(path(session, org, key))

    @command(app, "update", Effect.CHANGES)
    def update(
        session: Session,
        key: str,
        org: OrgOption = None,
        model: Models = None,
        requests_per_minute: PerMinute = None,
        tokens_per_minute: Tokens = None,
        concurrent: Concurrent = None,
    ) -> None:
        """Change its models or limits."""
        limits = limits_document(requests_per_minute, tokens_per_minute, concurrent)
        session.change("PATCH", path(session, org, key), {"models": model or None, "limits": limits})

    @command(app, "rotate", Effect.CHANGES)
    def rotate(
        session: Session,
        key: str,
        org: OrgOption = None,
        grace: Annotated[int, typer.Option("--grace-seconds", help="How long the old secret still works.")] = 0,
    ) -> None:
        """Give it a new secret, printed once."""
        _once(session.change("POST", f"{path(session, org, key)}/rotate", {"grace_seconds": grace}))

    @command(app, "revoke", Effect.REMOVES)
    def revoke(session: Session, key: str, org: OrgOption = None, reason: Reason = None) -> None:
        """Refuse it from now on, for ever."""
        session.confirm(f"revoke key {key}")
        session.change("POST", f"{path(session, org, key)}/revoke", {"reason": reason})


def _admin_keys(app: typer.Typer) -> None:
    @command(app, "create", Effect.CHANGES)
    def create(
        session: Session,
        name: str,
        role: Annotated[
            str,
            typer.Option("--role", help="platform-admin, org-admin, org-billing or org-viewer.", show_default=False),
        ],
        org: OrgOption = None,
    ) -> None:
        """Issue an admin key; its secret is printed once."""
        _once(session.change("POST", "/admin/v1/admin-keys", {"name": name, "role": role, "org": org}))

    @command(app, "list")
    def list_(session: Session) -> None:
        """List the admin keys."""
        session.list("/admin/v1/admin-keys", ADMIN_KEY_COLUMNS)

    @command(app, "show")
    def show(session: Session, key: str) -> None:
        """Show an admin key."""
        session.show(f"/admin/v1/admin-keys/{segment(key)}")

    @command(app, "revoke", Effect.REMOVES)
    def revoke(session: Session, key: str) -> None:
        """Refuse it from now on, for ever."""
        session.confirm(f"revoke admin key {key}")
        session.change("POST", f"/admin/v1/admin-keys/{segment(key)}/revoke")
