"""The local stack: real Kafka, PostgreSQL, Redis and ClickHouse on this machine, without Docker and without root. Linux only.

For development and tests. `Stack` is all of it; ``tollhouse stack`` is its command line.
"""

from infra.stack.stack import ServerStatus, Stack

__all__ = ["ServerStatus", "Stack"]
