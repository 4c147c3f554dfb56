"""``tollhouse stack``: real Kafka, PostgreSQL, Redis and ClickHouse on this machine, for development and tests."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import Format, emit, emit_list, note
from cli.session import noun

if TYPE_CHECKING:
    from infra.stack import Stack

DEFAULT_FOLDER = Path(".data/stack")
COLUMNS = ("name", "state", "pid", "port", "awaited")

Folder = Annotated[Path, typer.Option("--dir", help="The folder of the stack.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]
Brokers = Annotated[
    int | None, typer.Option("--brokers", help="1 or 3; without it what the folder has, else 1.", show_default=False)
]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="Where Kafka's jars are kept; ~/.cache/tollhouse.", show_default=False)
]


def register(root: typer.Typer) -> None:
    """Adds the noun to `root`."""
    app = noun(root, "stack", "Real Kafka, PostgreSQL, Redis and ClickHouse on this machine, without Docker.")

    @app.command("up")
    def up(
        folder: Folder = DEFAULT_FOLDER, brokers: Brokers = None, cache: Cache = None, output: Output = Format.table
    ) -> None:
        """Start every server that does not run; return when all of them answer."""
        from infra.stack import Stack

        stack = Stack(folder, brokers, cache=cache, tell=note)
        stack.up()
        _print(stack, output)

    @app.command("status")
    def status(folder: Folder = DEFAULT_FOLDER, output: Output = Format.table) -> None:
        """Show each server, its process and its port, and the settings that lead to them."""
        from infra.stack import Stack

        _print(Stack(folder), output)

    @app.command("down")
    def down(folder: Folder = DEFAULT_FOLDER) -> None:
        """Stop every server; the data stay for the next start."""
        from infra.stack import Stack

        Stack(folder).down()


def _print(stack: "Stack", form: Format) -> None:
    rows = [
        {"name": each.name, "state": each.state, "pid": each.pid, "port": each.port, "awaited": each.awaited}
        for each in stack.status()
    ]
    emit_list(rows, form, COLUMNS, environment=stack.environment)
    if form is Format.table:
        print()
        emit(stack.environment, form)
