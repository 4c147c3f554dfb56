"""``tollhouse hello``: runs the Hello service in this process."""

import logging

import uvloop

from api.hello import Hello, Options
from cli import log_lines
from cli.http_cycle import UNFINISHED
from cli.http_server import serve_app
from domain.errors import invalid


def serve_hello(address: tuple[str, int], options: Options) -> None:
    """Serves until it is told to stop. Raises `Invalid` naming an option that is impossible."""
    for name in ("ttft_ms", "ms_per_token"):
        if not 0 <= getattr(options, name) <= 600_000:
            raise invalid(f"--{name.replace('_', '-')}", "must be 0 to 600000 milliseconds")
    for name in ("error_rate", "drop_rate"):
        if not 0 <= getattr(options, name) <= 1:
            raise invalid(f"--{name.replace('_', '-')}", "must be 0 to 1")
    try:
        app = Hello(options)
    except OSError as error:
        raise invalid("--journal", f"must be a file that can be written: {error.strerror}: {options.journal}") from None
    log_lines.configure()
    # An answer that Hello drops ends exactly so; it is no fault of the server.
    logging.getLogger("tollhouse.http").addFilter(lambda record: record.getMessage() != UNFINISHED)
    try:
        uvloop.run(serve_app(app, address, lambda url: print(f"ready {url}", flush=True)))
    finally:
        app.journal.close()
