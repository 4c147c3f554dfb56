"""``tollhouse control``: takes commands, and forwards them to the gateways in one of its processes at a time."""

import uvloop

from api.metrics import Metrics
from cli import log_lines
from cli.running import allow_many_files
from cli.serving import serve_process
from cli.settings import Settings
from cli.wiring_distributed_control import open_control
from infra.adapters.clickhouse import check_named


def serve_control(settings: Settings) -> None:
    """Runs until SIGTERM. `settings` has kafka, postgres and secret. Raises `Invalid` if its ClickHouse is none."""
    if settings.clickhouse is not None:
        check_named(settings.clickhouse)
    log_lines.configure()
    allow_many_files()
    metrics = Metrics()
    uvloop.run(
        serve_process(settings, metrics, lambda starting, failed: open_control(settings, metrics, starting, failed))
    )
