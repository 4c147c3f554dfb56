"""The broker that runs for a moment so that Java learns which classes a broker loads."""

from collections.abc import Sequence
from pathlib import Path

from infra.stack.kafka.broker import Broker, Node
from infra.stack.kafka.runtime import Runtime
from infra.stack.ports import choose
from infra.stack.running import stop, wait_ready
from infra.stack.server import launch


def train(runtime: Runtime, options: Sequence[str], folder: Path) -> None:
    """Starts a broker in `folder` with Java's `options`, waits until it answers, and stops it."""
    node = Node(1, *choose(2))
    broker = Broker(folder / node.name, node, (node,), runtime, options)
    broker.prepare()
    started = [(broker, launch(broker))]
    try:
        wait_ready(started, lambda: {node.name})
    finally:
        stop(started)
