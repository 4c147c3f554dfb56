"""What is compared: a proxy that runs, and what was seen of it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import first_byte, load
from tests.bench.calls import EVENTS, Call
from tests.bench.processes import children, cpu_seconds, memory_mb, own_cpu_seconds

LEVELS = (1, 10, 64)
"""Connections."""

STREAMS, STREAM_SECONDS = 16, 5
"""At once; and for at least so long: the slowest proxy takes seconds to begin as many."""


@dataclass(frozen=True, slots=True)
class Target:
    """A proxy that runs alone on its core. `direct` is the backend of `streamed` without it."""

    name: str
    tier: str
    pid: int
    plain: Call
    streamed: Call
    direct: Call


@dataclass(frozen=True, slots=True)
class Level:
    """Requests a second at some connections at once; CPU microseconds of all its processes, and of the first; milliseconds."""

    connections: int
    per_second: float
    cpu: float
    own_cpu: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Figures of one target. `chunk`: CPU microseconds of all processes for each event of a stream; `first`: milliseconds
    that it adds before one begins; `memory`: resident MB of its processes, the first one's first, after the load."""

    name: str
    tier: str
    levels: Sequence[Level]
    chunk: float
    first: float
    memory: Sequence[float]

    def at(self, connections: int) -> Level:
        return next(level for level in self.levels if level.connections == connections)


def seen(target: Target, seconds: int, folder: Path) -> Seen:
    """Measures everything. Ends the bench if a request went wrong."""
    load.once(target.plain)
    load.run(target.plain, 16, 2, folder)
    levels = [_level(target, connections, seconds, folder) for connections in LEVELS]
    first = first_byte.added(target.streamed, target.direct, seconds)
    chunk = _chunk(target, seconds, folder)
    memory = [memory_mb(pid) for pid in (target.pid, *children(target.pid))]
    return Seen(target.name, target.tier, levels, chunk, first, memory)


def _level(target: Target, connections: int, seconds: int, folder: Path) -> Level:
    load.once(target.plain)  # after what an earlier load left in its queue
    before, own = cpu_seconds(target.pid), own_cpu_seconds(target.pid)
    figures = load.run(target.plain, connections, seconds, folder)
    if not figures.requests:  # the slowest, on a machine that is busy
        figures = load.run(target.plain, connections, max(seconds, STREAM_SECONDS) * 4, folder)
    if figures.errors or not figures.requests:
        sys.exit(f"{target.name}: {figures.errors} requests went wrong, {figures.requests} were answered")
    used, used_own = cpu_seconds(target.pid) - before, own_cpu_seconds(target.pid) - own
    each = 1e6 / figures.requests
    return Level(connections, figures.per_second, used * each, used_own * each, figures.p50, figures.p99)


def _chunk(target: Target, seconds: int, folder: Path) -> float:
    """By bytes received, so that answers under way at the end count for what came of them."""
    whole = first_byte.length(target.streamed)
    load.run(target.streamed, STREAMS, 1, folder)
    before = cpu_seconds(target.pid)
    figures = load.run(target.streamed, STREAMS, max(seconds, STREAM_SECONDS), folder)
    if not figures.received:
        sys.exit(f"{target.name}: no stream began")
    used = cpu_seconds(target.pid) - before
    return used / (figures.received / whole * EVENTS) * 1e6
