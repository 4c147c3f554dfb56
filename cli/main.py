"""The command line `tollhouse`: nouns, then verbs. Nothing heavy is imported before a command runs."""

import os
import sys

import typer
from typer._completion_classes import completion_init

from cli import budgets, catalog, keys, operations, orgs, processes, reads, stack
from cli.exits import ERROR, exit_code
from domain.errors import TollhouseError

COMPLETE = "_TOLLHOUSE_COMPLETE"
"""The shell asks for completions while this variable is set."""

app = typer.Typer(
    name="tollhouse",
    help="A self-hosted AI gateway that keeps its own books.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (processes, orgs, keys, budgets, catalog, reads, operations, stack):
    part.register(app)


def main() -> None:
    """Runs the command line; errors become one line on stderr and an exit code."""
    if COMPLETE in os.environ:
        completion_init()
    try:
        app()
    except TollhouseError as error:
        print(f"error: {error.message} ({error.code})", file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(ERROR)


if __name__ == "__main__":
    main()
