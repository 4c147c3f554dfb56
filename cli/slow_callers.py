"""Callers that do not send their requests, or do not take their answers, are cut off: what waits for them is memory.

How long a request may take to arrive is its connection's own affair (`cli.http_protocol`), asked here. What a connection
still has to send is looked at every now and then, for all connections together; a caller that reads as it should costs
nothing. One is cut off when nothing of what waits for it could be sent for `seconds`, or when it takes so little that the rest
of a whole answer (or what a stream may be ahead of its caller) takes longer than `ALTOGETHER` to go.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

ALTOGETHER = 600.0
"""Seconds."""

_LOOKS = 10
"""So many looks in `seconds`."""

_log = logging.getLogger("tollhouse.http")


@dataclass(slots=True)
class _Waiting:
    """What a connection had to send at the last look, how often it had found room by then, since when nothing has moved, and
    since when it has had the same room to find."""

    size: int
    resumed: int
    since: float
    first: float


@dataclass(slots=True)
class SlowCallers:
    """`run` it beside a server. `seconds`: how long a caller may take nothing, or for the head of a request. `cut`: how many were
    cut off that took nothing."""

    seconds: float = 30.0
    cut: int = 0
    _waiting: dict[Any, _Waiting] = field(default_factory=dict)

    async def run(self, connections: Iterable[Any]) -> None:
        """Looks at uvicorn's `connections` for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.seconds / _LOOKS)
            now = loop.time()
            for connection in list(connections):
                connection.look(now, self.seconds)
            self.look(list(connections), now)

    def look(self, connections: Iterable[Any], now: float) -> None:
        """One look, at `now` seconds."""
        before, self._waiting = self._waiting, {}
        for connection in connections:
            size = connection.transport.get_write_buffer_size()
            if not size:
                continue
            known = before.get(connection)
            if known is None or connection.resumed != known.resumed:
                self._waiting[connection] = _Waiting(size, connection.resumed, now, now)
                continue
            full = connection.full
            moved = size < known.size or (size > known.size and not full)
            waiting = replace(known, size=size)
            if moved:
                waiting.since = now
                waiting.first = known.first if full else now
            if now - waiting.since >= self.seconds or now - waiting.first >= ALTOGETHER:
                self.cut += 1
                _log.warning("a caller was cut off: it did not take %d bytes of its answer", size)
                connection.transport.abort()
            else:
                self._waiting[connection] = waiting
