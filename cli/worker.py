"""``tollhouse worker``: keeps the views of distributed mode, together with all other workers."""

import asyncio
import logging
import signal
import time
from collections.abc import Mapping

import uvloop

from api.metrics import Metrics
from api.site import Site
from cli import log_lines
from cli.http_server import serve_app
from cli.settings import Settings
from cli.wiring_worker import Worker, open_worker

QUIET = ("faust", "mode", "aiokafka", "kafka")
"""Loggers that tell every step of theirs."""


def work(settings: Settings) -> None:
    """Runs until SIGTERM. Raises `Invalid` if a setting it needs is missing."""
    log_lines.configure()
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    uvloop.run(_until_told(settings))


async def _until_told(settings: Settings) -> None:
    """A signal that comes before there is anything to drain ends it at once."""
    working = asyncio.ensure_future(_work(settings))
    told = asyncio.Event()

    def tell() -> None:
        told.set()
        working.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell)
    try:
        await working
    except asyncio.CancelledError:
        if not told.is_set():
            raise


async def _work(settings: Settings) -> None:
    async with open_worker(settings) as worker:
        site = Site({}, worker.reasons, _metrics(worker))
        await serve_app(site, settings.address, lambda url: print(f"ready {url}", flush=True), worker.runner.failed)


def _metrics(worker: Worker) -> Metrics:
    metrics = Metrics()
    metrics.gauge("tollhouse_not_ready_reasons", "Reasons why views may fall behind", lambda: len(worker.reasons()))
    metrics.gauge(
        "tollhouse_worker_partitions", "Partitions that are this worker's", lambda: len(worker.runner.assigned or ())
    )

    def lags() -> Mapping[str, float]:
        return {lane.name: lane.lag() for lane in worker.lanes}

    def ages() -> Mapping[str, float]:
        now = time.monotonic()
        return {lane.name: now - lane.moved_at for lane in worker.lanes}

    def applied() -> Mapping[str, float]:
        return {lane.name: lane.applied for lane in worker.lanes}

    metrics.gauges("tollhouse_projection_lag_events", "Records that are not in the view", "projection", lags)
    metrics.gauges("tollhouse_projection_age_seconds", "Since the view moved or had everything", "projection", ages)
    metrics.gauges("tollhouse_projection_applied_events", "Records this worker took in", "projection", applied)
    return metrics
