"""Turns at streams: commands of one process that want to change the same go one after another, instead of racing for it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager


class Turns:
    """Use it on one event loop. Whoever has a turn at some streams has them alone, until he is done with all of them."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._wanted: dict[str, int] = {}

    @asynccontextmanager
    async def at(self, streams: Iterable[str]) -> AsyncIterator[None]:
        """A turn at all of `streams`."""
        async with AsyncExitStack() as turns:
            for stream in sorted(set(streams)):  # in one order, so that no two wait for each other
                await turns.enter_async_context(self._at(stream))
            yield

    @asynccontextmanager
    async def _at(self, stream: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(stream, asyncio.Lock())
        self._wanted[stream] = self._wanted.get(stream, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._wanted[stream] -= 1
            if not self._wanted[stream]:
                del self._locks[stream], self._wanted[stream]
