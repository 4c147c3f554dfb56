"""``tollhouse org``, ``project`` and ``user``."""

from collections.abc import Sequence
from typing import Annotated

import typer

from cli.limits import Concurrent, PerMinute, Tokens, limits_document
from cli.paths import org_path, segment
from cli.session import Effect, Session, command, noun
from domain.errors import invalid

OrgOption = Annotated[str | None, typer.Option("--org", help="The organization.", show_default=False)]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept in the audit.", show_default=False)]

ORG_COLUMNS = ("id", "name", "timezone", "status", "budget_status", "version")
PROJECT_COLUMNS = ("id", "name", "status", "version")
USER_COLUMNS = ("id", "email", "role", "status", "version")


FALLBACK = "MODEL:REASON=OTHER, where REASON is context_window, budget_exhausted or soft_budget"


def fallbacks_of(texts: Sequence[str] | None) -> dict[str, dict[str, str]] | None:
    """``MODEL:REASON=OTHER`` each, or ``none``. Raises `Invalid`."""
    if not texts:
        return None
    found: dict[str, dict[str, str]] = {}
    for text in texts if list(texts) != ["none"] else ():
        left, _, other = text.partition("=")
        model, _, reason = left.partition(":")
        if not (model and reason and other):
            raise invalid("--fallback", f"must be {FALLBACK}; got {text!r}")
        found.setdefault(model, {})[reason] = other
    return found


def register(root: typer.Typer) -> None:
    """Adds the nouns to `root`."""
    _orgs(noun(root, "org", "Organizations."))
    _projects(noun(root, "project", "Projects of an organization."))
    _users(noun(root, "user", "Users of an organization."))


def _orgs(app: typer.Typer) -> None:
    name_option = typer.Option("--name", help="Its name; the id without one.", show_default=False)
    zone_option = typer.Option("--timezone", help="IANA zone of its days and months.", show_default=False)
    status_option = typer.Option(
        "--budget-status", help="Status of a refusal by a budget: 402 or 429.", show_default=False
    )

    @command(app, "create", Effect.CHANGES)
    def create(
        session: Session,
        org: str,
        name: Annotated[str | None, name_option] = None,
        timezone: Annotated[str | None, zone_option] = None,
        budget_status: Annotated[int | None, status_option] = None,
        requests_per_minute: PerMinute = None,
        tokens_per_minute: Tokens = None,
        concurrent: Concurrent = None,
    ) -> None:
        """Create an organization."""
        limits = limits_document(requests_per_minute, tokens_per_minute, concurrent)
        body = {"id": org, "name": name or org, "timezone": timezone, "budget_status": budget_status, "limits": limits}
        session.change("POST", "/admin/v1/orgs", body, then=[f"tollhouse project create web --org {org}"])

    @command(app, "list")
    def list_(session: Session) -> None:
        """List the organizations."""
        session.list("/admin/v1/orgs", ORG_COLUMNS)

    @command(app, "show")
    def show(session: Session, org: str) -> None:
        """Show an organization."""
        session.show(org_path(org))

    @command(app, "update", Effect.CHANGES)
    def update(
        session: Session,
        org: str,
        name: Annotated[str | None, name_option] = None,
        timezone: Annotated[str | None, zone_option] = None,
        budget_status: Annotated[int | None, status_option] = None,
        requests_per_minute: PerMinute = None,
        tokens_per_minute: Tokens = None,
        concurrent: Concurrent = None,
        model: Annotated[
            str | None, typer.Option("--model", help="The limits are those of this model alone.", show_default=False)
        ] = None,
        fallback: Annotated[
            list[str] | None,
            typer.Option(
                "--fallback", help=f"{FALLBACK}; repeatable, all there are. 'none' for none.", show_default=False
            ),
        ] = None,
    ) -> None:
        """Change what is given."""
        limits = limits_document(requests_per_minute, tokens_per_minute, concurrent)
        if limits is not None and model is not None:
            limits = {"models": {model: limits}}
        settings = {"name": name, "timezone": timezone, "budget_status": budget_status}
        body = settings | {"limits": limits, "fallbacks": fallbacks_of(fallback)}
        session.change("PATCH", org_path(org), body)

    @command(app, "suspend", Effect.REMOVES)
    def suspend(session: Session, org: str, reason: Reason = None) -> None:
        """Refuse all its requests until it is reinstated."""
        session.confirm(f"suspend organization {org}")
        session.change("POST", f"{org_path(org)}/suspend", {"reason": reason}, then=[f"tollhouse org reinstate {org}"])

    @command(app, "reinstate", Effect.CHANGES)
    def reinstate(session: Session, org: str) -> None:
        """Serve it again."""
        session.change("POST", f"{org_path(org)}/reinstate")

    @command(app, "close", Effect.REMOVES)
    def close(session: Session, org: str) -> None:
        """Close it for ever; its books stay."""
        session.confirm(f"close organization {org} for ever")
        session.change("DELETE", org_path(org))


def _projects(app: typer.Typer) -> None:
    name_option = typer.Option("--name", help="Its name; the id without one.", show_default=False)

    def path(session: Session, org: str | None, project: str) -> str:
        return f"{org_path(session.org(org))}/projects/{segment(project)}"

    @command(app, "create", Effect.CHANGES)
    def create(
        session: Session,
        project: str,
        org: OrgOption = None,
        name: Annotated[str | None, name_option] = None,
        requests_per_minute: PerMinute = None,
        tokens_per_minute: Tokens = None,
        concurrent: Concurrent = None,
    ) -> None:
        """Create a project."""
        owner = session.org(org)
        limits = limits_document(requests_per_minute, tokens_per_minute, concurrent)
        body = {"id": project, "name": name or project, "limits": limits}
        then = [f"tollhouse key create app --project {project} --org {owner}"]
        session.change("POST", f"{org_path(owner)}/projects", body, then=then)

    @command(app, "list")
    def list_(session: Session, org: OrgOption = None) -> None:
        """List the projects of an organization."""
        session.list(f"{org_path(session.org(org))}/projects", PROJECT_COLUMNS)

    @command(app, "show")
    def show(session: Session, project: str, org: OrgOption = None) -> None:
        """Show a project."""
        session.show(path(session, org, project))

    @command(app, "update", Effect.CHANGES)
    def update(
        session: Session,
        project: str,
        org: OrgOption = None,
        name: Annotated[str | None, typer.Option("--name", show_default=False)] = None,
        requests_per_minute: PerMinute = None,
        tokens_per_minute: Tokens = None,
        concurrent: Concurrent = None,
    ) -> None:
        """Change its name or limits."""
        limits = limits_document(requests_per_minute, tokens_per_minute, concurrent)
        session.change("PATCH", path(session, org, project), {"name": name, "limits": limits})

    @command(app, "suspend", Effect.REMOVES)
    def suspend(session: Session, project: str, org: OrgOption = None, reason: Reason = None) -> None:
        """Refuse its requests until it is reinstated."""
        session.confirm(f"suspend project {project}")
        session.change("POST", f"{path(session, org, project)}/suspend", {"reason": reason})

    @command(app, "reinstate", Effect.CHANGES)
    def reinstate(session: Session, project: str, org: OrgOption = None) -> None:
        """Serve it again."""
        session.change("POST", f"{path(session, org, project)}/reinstate")

    @command(app, "close", Effect.REMOVES)
    def close(session: Session, project: str, org: OrgOption = None) -> None:
        """Close it for ever; its books stay."""
        session.confirm(f"close project {project} for ever")
        session.change("DELETE", path(session, org, project))


def _users(app: typer.Typer) -> None:
    role_option = typer.Option("--role", help="member, org-viewer, org-billing or org-admin.")

    def path(session: Session, org: str | None, user: str) -> str:
        return f"{org_path(session.org(org))}/users/{segment(user)}"

    @command(app, "invite", Effect.CHANGES)
    def invite(
        session: Session, email: str, role: Annotated[str, role_option] = "member", org: OrgOption = None
    ) -> None:
        """Invite a person by mail address."""
        owner = session.org(org)
        then = [f"tollhouse user accept {{id}} --org {owner}"]
        session.change("POST", f"{org_path(owner)}/users", {"email": email, "role": role}, then=then)

    @command(app, "list")
    def list_(session: Session, org: OrgOption = None) -> None:
        """List the users of an organization."""
        session.list(f"{org_path(session.org(org))}/users", USER_COLUMNS)

    @command(app, "show")
    def show(session: Session, user: str, org: OrgOption = None) -> None:
        """Show a user."""
        session.show(path(session, org, user))

    @command(app, "accept", Effect.CHANGES)
    def accept(session: Session, user: str, org: OrgOption = None) -> None:
        """Accept an invitation."""
        session.change("POST", f"{path(session, org, user)}/accept")

    @command(app, "role", Effect.CHANGES)
    def role(session: Session, user: str, role: Annotated[str, role_option], org: OrgOption = None) -> None:
        """Give a user another role."""
        session.change("PATCH", path(session, org, user), {"role": role})

    @command(app, "limit", Effect.CHANGES)
    def limit(
        session: Session,
        user: str,
        org: OrgOption = None,
        requests_per_minute: PerMinute = None,
        tokens_per_minute: Tokens = None,
        concurrent: Concurrent = None,
    ) -> None:
        """Limit what the user's keys may ask for together."""
        limits = limits_document(requests_per_minute, tokens_per_minute, concurrent)
        session.change("PATCH", path(session, org, user), {"limits": limits})

    @command(app, "suspend", Effect.REMOVES)
    def suspend(session: Session, user: str, org: OrgOption = None, reason: Reason = None) -> None:
        """Refuse the requests of the user's keys until reinstated."""
        session.confirm(f"suspend user {user}")
        session.change("POST", f"{path(session, org, user)}/suspend", {"reason": reason})

    @command(app, "reinstate", Effect.CHANGES)
    def reinstate(session: Session, user: str, org: OrgOption = None) -> None:
        """Serve the user's keys again."""
        session.change("POST", f"{path(session, org, user)}/reinstate")

    @command(app, "remove", Effect.REMOVES)
    def remove(session: Session, user: str, org: OrgOption = None) -> None:
        """Remove the user; the keys end with it."""
        session.confirm(f"remove user {user}")
        session.change("DELETE", path(session, org, user))
