"""``tollhouse replay``, ``parked`` and ``reconcile``: on a running server by its API, on a stopped folder directly."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import CheckFailed
from cli.paths import segment
from cli.progress import Update, progress
from cli.session import Effect, Session, command, noun
from domain.errors import NotFound, TollhouseError, invalid

if TYPE_CHECKING:
    from infra.adapters.api_client import ApiClient

PROJECTION_COLUMNS = ("name", "version", "watermark", "events", "lag", "parked", "status")
VERIFY_COLUMNS = ("name", "version", "watermark", "events", "live_hash", "rebuilt_hash", "equal")
PARKED_COLUMNS = ("id", "projection", "org", "type", "partition", "offset", "error")
POLL_SECONDS = 0.1


def register(root: typer.Typer) -> None:
    """Adds the commands and nouns to `root`."""
    _replay(noun(root, "replay", "Rebuild and check projections from the log."))
    _parked(noun(root, "parked", "Events that a projection could not take."))
    _reconcile(root)


def finished(client: "ApiClient", started: Any, update: Update) -> Any:
    """The result of an operation, once it has ended. Raises `TollhouseError` with its error if it failed."""
    while True:
        operation = client.get(f"/admin/v1/operations/{segment(started['operation'])}")
        seen = operation.get("progress") or {}
        update(seen.get("done", 0), seen.get("total", 0))
        match operation["status"]:
            case "done":
                return operation.get("result")
            case "failed":
                error = operation.get("error")
                raise TollhouseError(error.get("message", str(error)) if isinstance(error, dict) else str(error))
        time.sleep(POLL_SECONDS)


def _replay(app: typer.Typer) -> None:
    @command(app, "status")
    def status(session: Session) -> None:
        """List the projections and how far they are."""
        if _running(session):
            session.list("/admin/v1/projections", PROJECTION_COLUMNS)
            return
        from cli import offline

        session.print(offline.projections(session.settings), PROJECTION_COLUMNS)

    @command(app, "rebuild")
    def rebuild(session: Session, name: str) -> None:
        """Build a projection anew beside the live one, compare, and switch."""
        with progress(f"rebuild {name}") as update:
            if client := _running(session):
                started = client.send("POST", f"/admin/v1/projections/{segment(name)}/rebuild").doc
                result = finished(client, started, update)
            else:
                from cli import offline

                result = offline.rebuild(session.settings, name, update)
        session.print([result], VERIFY_COLUMNS)
        if result.get("equal") is False:
            raise CheckFailed(f"{name}: the rebuilt projection differs from the live one")

    @command(app, "verify")
    def verify(
        session: Session,
        name: Annotated[str | None, typer.Argument(help="All of them without it.", show_default=False)] = None,
    ) -> None:
        """Rebuild aside and compare hashes; exit 6 if any differs."""
        rows = []
        client = _running(session)
        if client is not None:
            names = (
                [name] if name else [p["name"] for page in client.pages("/admin/v1/projections") for p in page["data"]]
            )
            for each in names:
                with progress(f"verify {each}") as update:
                    started = client.send("POST", f"/admin/v1/projections/{segment(each)}/verify").doc
                    rows.append(finished(client, started, update))
        else:
            from cli import offline

            with progress("verify") as update:
                rows = offline.verify(session.settings, name, update)
        equal = all(row["equal"] for row in rows)
        session.print(rows, VERIFY_COLUMNS, equal=equal)
        if not equal:
            raise CheckFailed("differs: " + ", ".join(row["name"] for row in rows if not row["equal"]))


def _parked(app: typer.Typer) -> None:
    def path(event: str) -> str:
        return f"/admin/v1/parked/{segment(event)}"

    def rows(session: Session) -> list[dict[str, Any]]:
        if client := _running(session):
            return [row for page in client.pages("/admin/v1/parked") for row in page["data"]]
        from cli import offline

        return offline.parked(session.settings)

    def only(session: Session, event: str) -> list[dict[str, Any]]:
        found = [row for row in rows(session) if row["id"] == event]
        if not found:
            raise NotFound(f"nothing parked has the id {event}")
        return found

    @command(app, "list")
    def list_(session: Session) -> None:
        """List what is parked."""
        session.print(rows(session), PARKED_COLUMNS)

    @command(app, "show")
    def show(session: Session, event: str) -> None:
        """Show one parked event and why it is parked."""
        session.print(only(session, event))

    @command(app, "retry")
    def retry(session: Session, event: str) -> None:
        """Hand it to its projection again, with what waits behind it."""
        if client := _running(session):
            session.print([client.send("POST", f"{path(event)}/retry").doc])
            return
        from cli import offline

        session.print([offline.retry_parked(session.settings, event)])

    @command(app, "drop", Effect.REMOVES)
    def drop(session: Session, event: str) -> None:
        """Go on without it."""
        if session.dry_run:
            session.print(only(session, event))
            return
        session.confirm(f"drop parked event {event}")
        if client := _running(session):
            session.print([client.send("POST", f"{path(event)}/drop").doc])
            return
        from cli import offline

        session.print([offline.drop_parked(session.settings, event)])


def _reconcile(root: typer.Typer) -> None:
    @command(root, "reconcile")
    def reconcile(
        session: Session,
        file: Annotated[
            Path,
            typer.Option("--file", help="NDJSON: request_id, prompt_tokens, completion_tokens.", show_default=False),
        ],
        backend: Annotated[
            list[str] | None,
            typer.Option("--backend", help="Whose record it is; repeatable. Of all without it.", show_default=False),
        ] = None,
        as_of: Annotated[
            str | None,
            typer.Option("--as-of", help="When it was taken, if requests may have been under way.", show_default=False),
        ] = None,
    ) -> None:
        """End what is unconfirmed by a backend's own, complete record of what it served."""
        records = read_record(file)
        moment = None if as_of is None else parse_moment(as_of)
        with progress("reconcile") as update:
            if client := _running(session):
                named = backend[0] if backend and len(backend) == 1 else backend
                body = {"records": records, "backend": named} | ({} if as_of is None else {"as_of": as_of})
                result = client.send("POST", "/admin/v1/reconcile", body).doc
                if "operation" in result:
                    result = finished(client, result, update)
            else:
                from cli import offline

                result = offline.reconcile(session.settings, records, backend or [], moment, update)
        session.print([result])


def parse_moment(text: str) -> datetime:
    """A time with its zone. Raises `Invalid`."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment
    except ValueError:
        pass  # said below, with the same words
    raise invalid("--as-of", "must be a time with its zone, such as 2026-11-23T12:00:00Z")


def read_record(file: Path) -> list[dict[str, Any]]:
    """The lines of a backend's journal that name a request, with the fields that say what it used. Raises `Invalid`."""
    from commands.reconcile import FIELDS

    records = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                entry = json.loads(line)
                if not isinstance(entry, dict) or "prompt_tokens" not in entry or "completion_tokens" not in entry:
                    raise invalid("--file", f"line {number} must have request_id, prompt_tokens and completion_tokens")
                if entry.get("request_id"):
                    records.append({name: entry[name] for name in FIELDS if entry.get(name) is not None})
    except OSError as error:
        raise invalid("--file", f"must be a readable file: {error.strerror}: {file}") from None
    except ValueError as error:
        raise invalid("--file", f"line {number} is not JSON: {error}") from None
    return records


def _running(session: Session) -> "ApiClient | None":
    """The server's client, kept as the session's own; None: the folder is stopped and may be opened here."""
    from cli.connect import connect_if_running

    client = connect_if_running(session.settings)
    if client is not None:
        session.client = client
    return client
