"""``tollhouse gateway``: takes requests under ``/v1``. Any number of them share one gate."""

import uvloop

from api.metrics import Metrics
from cli import log_lines
from cli.running import allow_many_files
from cli.serving import serve_process
from cli.settings import Settings
from cli.sharing import share
from cli.wiring_distributed_gateway import open_gateway


def serve_gateway(settings: Settings) -> None:
    """Runs until SIGTERM. `settings` has kafka, redis and secret."""
    log_lines.configure()
    allow_many_files()
    if settings.workers > 1:
        uvloop.run(share(settings))
        return
    metrics = Metrics()
    uvloop.run(
        serve_process(settings, metrics, lambda starting, failed: open_gateway(settings, metrics, starting, failed))
    )
