"""One run of one command: the options that every command has, and what a command does with them.

`command` registers a function whose first parameter is the `Session`; the common options are added to the others:
``-o``, ``--url``, ``--data``, ``--profile``, for commands that change something ``--dry-run``, and for those that take something
away ``--yes``.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Format, Row, emit, emit_list, note
from domain.errors import invalid

if TYPE_CHECKING:
    from cli.settings import Settings
    from infra.adapters.api_client import ApiClient


class Effect(IntEnum):
    """What a command does to the world: nothing, changes it, takes something away that is used."""

    READS = 0
    CHANGES = 1
    REMOVES = 2


class Session:
    """The common options, and the settings and the client they lead to, made when first used."""

    def __init__(self, flags: Mapping[str, Any]) -> None:
        self.form = Format(flags["output"])
        self.dry_run = bool(flags.get("dry_run"))
        self._yes = bool(flags.get("yes"))
        self._profile: str | None = flags.get("profile")
        self._flags = {name: flags.get(name) for name in ("url", "data")}

    @cached_property
    def settings(self) -> "Settings":
        from cli.settings import load_settings

        return load_settings(self._flags, profile=self._profile)

    @cached_property
    def client(self) -> "ApiClient":
        from cli.connect import connect

        return connect(self.settings)

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if "client" in self.__dict__:
            self.client.close()

    def org(self, chosen: str | None) -> str:
        """The organization of ``--org``, else of the profile. Raises `Invalid` if neither names one."""
        name = chosen or self.settings.org
        if name is None:
            raise invalid("--org", 'must name the organization (a profile or tollhouse.toml can: org = "acme")')
        return name

    def confirm(self, what: str) -> None:
        """Asks the person at the terminal; without one ``--yes`` is needed. Raises `Invalid` or aborts."""
        if self._yes or self.dry_run:
            return
        if not sys.stdin.isatty():
            raise invalid("--yes", f"is needed to {what} without a terminal to ask on")
        typer.confirm(f"{what[0].upper()}{what[1:]}?", abort=True, err=True)

    def change(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, then: Sequence[str] = ()) -> Any:
        """Carries out a command and prints its answer; with ``--dry-run`` the events that it would append. `then`: what a
        person may want to do next; ``{id}`` stands for the id in the answer."""
        given = None if body is None else {name: value for name, value in body.items() if value is not None}
        answer = self.client.send(method, path, given, {"dry_run": "true"} if self.dry_run else None)
        if self.dry_run:
            emit_list(answer.doc["events"], self.form, ("type", "stream", "data"))
            return answer.doc
        if answer.doc is None:
            note("done")
        else:
            emit(answer.doc, self.form)
        for line in then:
            self.suggest(line.replace("{id}", str((answer.doc or {}).get("id", ""))))
        return answer.doc

    def show(self, path: str, params: Mapping[str, Any] | None = None) -> None:
        """Prints the document at `path`."""
        emit(self.client.get(path, params), self.form)

    def list(self, path: str, columns: Sequence[str], params: Mapping[str, Any] | None = None) -> None:
        """Prints all pages of the list at `path`, in JSON with what its first page says beside the items."""
        pages = self.client.pages(path, params)
        first = next(pages)
        rows = chain(first["data"], chain.from_iterable(page["data"] for page in pages))
        beside = {name: value for name, value in first.items() if name not in ("data", "next_cursor")}
        emit_list(rows, self.form, columns, **beside)

    def export(self, path: str, columns: Sequence[str], params: Mapping[str, Any] | None = None) -> None:
        """Prints a list that the server itself can write as CSV or NDJSON; those are passed on byte by byte."""
        if self.form not in (Format.csv, Format.ndjson):
            self.list(path, columns, params)
            return
        sys.stdout.flush()
        for piece in self.client.text(path, {**(params or {}), "format": str(self.form)}):
            sys.stdout.buffer.write(piece)

    def print(self, rows: Sequence[Row], columns: Sequence[str] = (), **extra: Any) -> None:
        """Prints rows that did not come as one list."""
        emit_list(rows, self.form, columns, **extra)

    def suggest(self, line: str) -> None:
        """A next command, for people only."""
        if self.form is Format.table and sys.stderr.isatty():
            note(f"next: {line}")


_OUTPUT = Annotated[Format, typer.Option("--output", "-o", help="How to print.", show_default=True)]
_URL = Annotated[str | None, typer.Option("--url", help="The server. [env: TOLLHOUSE_URL]", show_default=False)]
_DATA = Annotated[
    Path | None, typer.Option("--data", help="The embedded folder. [env: TOLLHOUSE_DATA]", show_default=False)
]
_PROFILE = Annotated[str | None, typer.Option("--profile", help="Settings of that name.", show_default=False)]
_DRY_RUN = Annotated[bool, typer.Option("--dry-run", help="Print the events it would append; change nothing.")]
_YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_COMMON = (
    _parameter("output", Format.table, _OUTPUT),
    _parameter("url", None, _URL),
    _parameter("data", None, _DATA),
    _parameter("profile", None, _PROFILE),
)
_BY_EFFECT: dict[Effect, tuple[inspect.Parameter, ...]] = {
    Effect.READS: _COMMON,
    Effect.CHANGES: (*_COMMON, _parameter("dry_run", False, _DRY_RUN)),
    Effect.REMOVES: (*_COMMON, _parameter("dry_run", False, _DRY_RUN), _parameter("yes", False, _YES)),
}

_Command = Callable[..., None]


def command(app: typer.Typer, name: str, effect: Effect = Effect.READS) -> Callable[[_Command], _Command]:
    """Registers a function as the command `name` of `app`."""

    def register(function: _Command) -> _Command:
        own = list(inspect.signature(function).parameters.values())[1:]
        common = list(_BY_EFFECT[effect])
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + common

        def run(**values: Any) -> None:
            session = Session({parameter.name: values.pop(parameter.name) for parameter in common})
            try:
                function(session, **values)
            finally:
                session.close()

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = function.__doc__
        app.command(name)(run)
        return function

    return register


def noun(parent: typer.Typer, name: str, help: str) -> typer.Typer:
    """A group of verbs under `parent`."""
    app = typer.Typer(help=help, no_args_is_help=True)
    parent.add_typer(app, name=name)
    return app
