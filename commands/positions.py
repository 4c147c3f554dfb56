"""Waiting for a journal position to be reached, by many at once."""

import asyncio
from heapq import heappop, heappush
from itertools import count


class Positions:
    """Use it on one event loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = count()

    def reached(self, position: int) -> None:
        """Everything up to `position` is there: who waits for that goes on."""
        while self._waiting and self._waiting[0][0] <= position:
            there = heappop(self._waiting)[2]
            if not there.done():
                there.set_result(None)

    async def wait_for(self, position: int, patience: float | None = None) -> None:
        """Returns once `position` is reached. Raises `TimeoutError` after `patience` seconds."""
        loop = asyncio.get_running_loop()
        there: asyncio.Future[None] = loop.create_future()
        heappush(self._waiting, (position, next(self._number), there))
        if patience is None:
            await there
            return
        end = loop.call_later(patience, _give_up, there)
        try:
            await there
        finally:
            end.cancel()


def _give_up(there: "asyncio.Future[None]") -> None:
    if not there.done():
        there.set_exception(TimeoutError())
