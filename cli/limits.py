"""Rate limits as options, the same for whatever has limits."""

from typing import Annotated, Any

import typer

PerMinute = Annotated[int | None, typer.Option("--requests-per-minute", min=0, help="0: no limit.", show_default=False)]
Tokens = Annotated[int | None, typer.Option("--tokens-per-minute", min=0, help="0: no limit.", show_default=False)]
Concurrent = Annotated[
    int | None, typer.Option("--concurrent", min=0, help="Requests under way; 0: no limit.", show_default=False)
]


def limits_document(requests: int | None, tokens: int | None, concurrent: int | None) -> dict[str, Any] | None:
    """``limits`` as the command API takes it: what is not given is left out, and 0 is null, which removes the limit."""
    given = {"requests_per_minute": requests, "tokens_per_minute": tokens, "concurrent": concurrent}
    return {name: value or None for name, value in given.items() if value is not None} or None
