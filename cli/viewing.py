"""The inside of the views process: views that are fed, and the read API before them."""

import asyncio
from pathlib import Path

import uvloop

from api.read.app import create_app
from cli.http_server import serve_app
from cli.settings import load_settings
from cli.slow_callers import ALTOGETHER, SlowCallers
from cli.wiring import installation_secret
from cli.wiring_reads import open_reads
from cli.wiring_views import open_views
from infra.adapters.child_process import END
from infra.adapters.data_folder import DataFolder


def keep_views(data: Path, socket: Path) -> None:
    """Feeds the views of the folder `data` and answers reads on `socket`, until it is told to end."""
    uvloop.run(_run(data, socket))


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
