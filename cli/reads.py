"""``tollhouse usage``, ``cost``, ``request``, ``audit`` and ``events``: what happened."""

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins

from cli.exits import CheckFailed
from cli.orgs import OrgOption
from cli.output import Format, emit_list, note
from cli.paths import org_path, read_path, segment
from cli.progress import progress
from cli.session import Effect, Session, command, noun

if TYPE_CHECKING:
    from commands.moving import Head

From = Annotated[str | None, typer.Option("--from", help="RFC 3339, inclusive.", show_default=False)]
To = Annotated[str | None, typer.Option("--to", help="RFC 3339, exclusive.", show_default=False)]
GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by", help="project, user, key, model, backend, outcome; several with commas.", show_default=False
    ),
]
Zone = Annotated[str | None, typer.Option("--timezone", help="IANA zone of the buckets.", show_default=False)]

_GROUPS = ("project", "user", "key", "model", "backend", "outcome")
USAGE_COLUMNS = (
    "start",
    *_GROUPS,
    "requests",
    "denied",
    "failed",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "cost_usd",
    "estimated_usd",
)
COST_COLUMNS = ("start", "end", *_GROUPS, "requests", "cost_usd", "estimated_usd")
REQUEST_COLUMNS = (
    "id",
    "time",
    "project",
    "key",
    "model",
    "backend",
    "outcome",
    "code",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "latency_ms",
)
AUDIT_COLUMNS = ("time", "actor", "type", "stream", "version", "id")
EVENT_COLUMNS = ("occurred_at", "type", "stream", "version", "actor", "id")


def register(root: typer.Typer) -> None:
    """Adds the commands and nouns to `root`."""
    _usage(root)
    _requests(noun(root, "request", "Requests, and what was decided about them."))
    _audit(noun(root, "audit", "Who changed what."))
    _events(noun(root, "events", "The events themselves."))


def _usage(root: typer.Typer) -> None:
    bucket_option = typer.Option("--bucket", help="minute, hour, day, month or all.")

    def params(**given: Any) -> dict[str, Any]:
        return {name.rstrip("_"): value for name, value in given.items()}

    @command(root, "usage")
    def usage(
        session: Session,
        org: OrgOption = None,
        from_: From = None,
        to: To = None,
        bucket: Annotated[str, bucket_option] = "day",
        group_by: GroupBy = None,
        timezone: Zone = None,
    ) -> None:
        """Requests, tokens and cost of an organization."""
        query = params(from_=from_, to=to, bucket=bucket, group_by=group_by, timezone=timezone)
        session.export(f"{read_path(session.org(org))}/usage", USAGE_COLUMNS, query)

    @command(root, "cost")
    def cost(
        session: Session,
        org: OrgOption = None,
        from_: From = None,
        to: To = None,
        bucket: Annotated[str, bucket_option] = "month",
        group_by: GroupBy = None,
        timezone: Zone = None,
    ) -> None:
        """What an organization spent: the same rows as `usage`, the money only."""
        query = params(from_=from_, to=to, bucket=bucket, group_by=group_by, timezone=timezone)
        pages = session.client.pages(f"{read_path(session.org(org))}/usage", query)
        rows = [{name: row[name] for name in COST_COLUMNS if name in row} for page in pages for row in page["data"]]
        session.print(rows, COST_COLUMNS)


def _requests(app: typer.Typer) -> None:
    def only(what: str) -> Any:
        return typer.Option(f"--{what}", help=f"Only this {what}.", show_default=False)

    @command(app, "list")
    def list_(
        session: Session,
        org: OrgOption = None,
        from_: From = None,
        to: To = None,
        project: Annotated[str | None, only("project")] = None,
        user: Annotated[str | None, only("user")] = None,
        key: Annotated[str | None, only("key")] = None,
        model: Annotated[str | None, only("model")] = None,
        outcome: Annotated[str | None, only("outcome")] = None,
        limit: Annotated[
            int | None, typer.Option("--limit", min=1, help="At most so many.", show_default=False)
        ] = None,
    ) -> None:
        """List requests, newest first."""
        path = f"{read_path(session.org(org))}/requests"
        query = {
            "from": from_,
            "to": to,
            "project": project,
            "user": user,
            "key": key,
            "model": model,
            "outcome": outcome,
        }
        if limit is None:
            session.export(path, REQUEST_COLUMNS, query)
            return
        pages = session.client.pages(path, {**query, "limit": min(limit, 1000)})
        rows = islice((row for page in pages for row in page["data"]), limit)
        emit_list(rows, session.form, REQUEST_COLUMNS)

    @command(app, "show")
    def show(session: Session, request: str) -> None:
        """Explain one request: who, budgets and balances seen, price, backends tried, cost."""
        session.show(f"/read/v1/requests/{segment(request)}")

    @command(app, "write-off", Effect.REMOVES)
    def write_off(
        session: Session,
        request: str,
        reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit.", show_default=False)],
        org: OrgOption = None,
    ) -> None:
        """Release the hold of an unconfirmed request."""
        session.confirm(f"write off request {request}")
        session.change(
            "POST", f"{org_path(session.org(org))}/requests/{segment(request)}/write-off", {"reason": reason}
        )


def _audit(app: typer.Typer) -> None:
    @command(app, "list")
    def list_(session: Session, org: OrgOption = None) -> None:
        """List who did what, with before and after."""
        session.list(f"{read_path(session.org(org))}/audit", AUDIT_COLUMNS)

    @command(app, "verify")
    def verify(session: Session) -> None:
        """Check the chain of hashes over all of it; exit 6 if it is broken."""
        doc = session.client.get("/read/v1/audit/verify")
        session.print([doc])
        if not doc["valid"]:
            raise CheckFailed("the audit's chain of hashes is broken")


def _events(app: typer.Typer) -> None:
    after_option = typer.Option("--after", help="Begin after this position.", show_default=False)

    @command(app, "tail")
    def tail(session: Session, org: OrgOption = None, after: Annotated[str | None, after_option] = None) -> None:
        """Print the events of an organization as they come, until interrupted: short lines, or NDJSON with any other -o."""
        for event in session.client.events(f"{read_path(session.org(org))}/events", {"after": after}):
            if session.form is Format.table:
                print(*(event.get(name) or "-" for name in EVENT_COLUMNS), sep="  ", flush=True)
            else:
                emit_list([event], Format.ndjson)
                sys.stdout.flush()

    @command(app, "show")
    def show(session: Session, event: str) -> None:
        """Show one event."""
        session.show(f"/admin/v1/events/{segment(event)}")

    @command(app, "export")
    def export(session: Session, file: Path) -> None:
        """Write the journal and the log of a stopped data folder to a new file, to be imported elsewhere."""
        from cli import moving

        with progress("export") as update:
            head = moving.export(session.settings, file, update)
        session.print([_counts(head)])
        where = "the same" if session.settings.secret else f"what is in {session.settings.data / 'secret'}"
        note(f"the secret must travel along: set TOLLHOUSE_SECRET there to {where}")

    @command(app, "import")
    def import_(session: Session, file: Path) -> None:
        """Carry an exported file into a distributed installation that is still empty. Run it again if it is interrupted."""
        from cli import moving

        with progress("import") as update:
            moved = moving.import_(session.settings, file, update)
        session.print([to_builtins(moved)])


def _counts(head: "Head") -> dict[str, Any]:
    return {name: getattr(head, name) for name in ("journal", "commands", "control", "facts", "partitions")}
