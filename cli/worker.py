"""``tollhouse worker``: keeps the views of distributed mode, together with all other workers, and the gate in good hands."""

import logging
import time

import uvloop

from api.metrics import Metrics
from cli import log_lines
from cli.serving import serve_process
from cli.settings import Settings
from cli.wiring_worker import open_worker

CHATTY = ("faust", "mode", "aiokafka")
"""Loggers that tell every step of theirs, and every try."""

SPARED_SECONDS = 10.0


def work(settings: Settings) -> None:
    """Runs until SIGTERM. `settings` has kafka, postgres, clickhouse, redis and secret."""
    configure_logs()
    metrics = Metrics()
    uvloop.run(
        serve_process(settings, metrics, lambda starting, failed: open_worker(settings, metrics, starting, failed))
    )


def configure_logs() -> None:
    """JSON lines, of which the chatty tell warnings only, and each not again and again."""
    log_lines.configure()
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(Sparing())


class Sparing(logging.Filter):
    """Lets a line of a chatty logger through once in `SPARED_SECONDS`: with Kafka away there would be fifty a second."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        if record.name.partition(".")[0] not in CHATTY:
            return True
        line, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._told.get(line, -SPARED_SECONDS) < SPARED_SECONDS:
            return False
        self._told[line] = now
        return True
