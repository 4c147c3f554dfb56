"""How many requests a process has under way at a time: beyond its places a few wait for a moment, and all others are shed at
once, before their bodies are read. A process that is asked for more than it can do answers what it takes as fast as ever."""

import asyncio
from collections import deque
from contextlib import suppress

from api.router.errors import RouterError

PATIENCE = 1.0
"""Seconds that a request waits for a place at most."""

WAITING = 10
"""One request waits at most for so many places."""


class Places:
    """`most` requests are under way at a time. Who waits goes first, in the order of coming. For one event loop."""

    __slots__ = ("_patience", "_queue", "most", "taken")

    def __init__(self, most: int, patience: float = PATIENCE) -> None:
        self.most = most
        self.taken = 0
        self._queue: deque[asyncio.Future[bool]] = deque()
        self._patience = patience

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def take(self) -> bool:
        """Takes a place, if there is one: `leave` is to follow. False: `wait` for one."""
        if self.taken >= self.most:
            return False
        self.taken += 1
        return True

    async def wait(self) -> None:
        """Returns with a place. Raises `RouterError` (``overloaded``): at once if too many wait already, else in a moment."""
        if len(self._queue) * WAITING >= self.most:
            raise self._overloaded()
        loop = asyncio.get_running_loop()
        place: asyncio.Future[bool] = loop.create_future()
        self._queue.append(place)
        timer = loop.call_later(self._patience, self._give_up, place)
        try:
            if not await place:
                raise self._overloaded()
        except asyncio.CancelledError:
            if place.cancelled():
                with suppress(ValueError):  # `leave` may have passed it over
                    self._queue.remove(place)
            elif place.result():
                self.leave()
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Gives a place back: to who has waited longest, if somebody has."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(True)
                return
        self.taken -= 1

    def _give_up(self, place: "asyncio.Future[bool]") -> None:
        if not place.done():
            self._queue.remove(place)
            place.set_result(False)

    def _overloaded(self) -> RouterError:
        return RouterError(
            "overloaded", f"this process has {self.most} requests under way, the most it takes: try again"
        )
