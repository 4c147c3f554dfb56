"""The views process of a running server: keeps the projections of a data folder and answers reads on a unix socket.

Started by `tollhouse serve`, ended with it: its standard input is a pipe from the server, whose end is the server's end.
"""

import argparse
import asyncio
import os
from pathlib import Path

import uvloop

from api.read.app import create_app
from cli import log_lines
from cli.http_server import serve_app
from cli.settings import load_settings
from cli.slow_callers import ALTOGETHER, SlowCallers
from cli.wiring import installation_secret
from cli.wiring_reads import open_reads
from cli.wiring_views import open_views
from infra.adapters.child_process import END, end_with_parent
from infra.adapters.data_folder import DataFolder

NICENESS = 10
"""The request path goes first."""


def main() -> None:
    options = argparse.ArgumentParser(prog="tollhouse views", description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--socket", type=Path, required=True)
    args = options.parse_args()
    end_with_parent()
    os.nice(NICENESS)
    log_lines.configure()
    uvloop.run(_run(args.data, args.socket))


async def _run(data: Path, socket: Path) -> None:
    settings = load_settings({"data": data})
    folder = DataFolder(data)
    ending = asyncio.Event()
    with open_views(folder) as views:
        views.runner.start()
        try:
            with open_reads(folder, installation_secret(settings, folder), views, ending=ending.is_set) as deps:
                app, where = create_app(deps), str(socket)
                slow = SlowCallers(ALTOGETHER)  # the one caller, who passes on as others take, cuts them off itself
                await serve_app(app, where, lambda _: None, stopping=ending.set, signals=(END,), slow=slow)
        finally:
            await asyncio.to_thread(views.runner.stop)


if __name__ == "__main__":
    main()
