"""Whether the caller of a stream has gone: watched from before its backend is asked until the answer's end."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from api.router.exchange import Exchange
from commands.ports import NotSent

T = TypeVar("T")


class Left(Exception):
    """The caller went first. `sent`: the backend may have seen the request."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the caller left")
        self.sent = sent


class Departure:
    """Of the caller of `exchange`, for the task that makes it. `close` when the answer is over."""

    __slots__ = ("_awaiting", "_stopped", "_task", "_watch")

    def __init__(self, exchange: Exchange) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._awaiting = self._stopped = False
        self._watch = asyncio.get_running_loop().create_task(exchange.left())
        self.then(self._stop_waiting)

    @property
    def seen(self) -> bool:
        return self._watch.done()

    def then(self, act: Callable[[], None]) -> None:
        """Calls `act` when the caller has gone, or at `close`."""
        self._watch.add_done_callback(lambda _: act())

    async def unless(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of a backend. Raises `Left` if the caller has gone: it is not asked then, or not waited for any longer."""
        await self._look()
        self._awaiting = True
        try:
            return await ask()
        except asyncio.CancelledError as cancelled:
            if not self._stopped or self._task.uncancel():
                raise
            raise Left(sent=not isinstance(cancelled, NotSent)) from None
        finally:
            self._awaiting = False

    async def close(self) -> None:
        self._watch.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch

    async def _look(self) -> None:
        """Whoever has gone already is seen then."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise NotSent from None
        if self.seen:
            raise Left(sent=False)

    def _stop_waiting(self) -> None:
        if self._awaiting:
            self._stopped = True
            self._task.cancel()
