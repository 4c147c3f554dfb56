"""Leading: runs something in the one process that holds a lease, and nowhere else for longer than the lease lasts."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from commands.ports import Lease
from domain.errors import Unavailable

_log = logging.getLogger("tollhouse.lease")


class Leader:
    """Runs `work` while it holds `lease`. Another process takes over at most `lease.seconds` after this one is gone."""

    def __init__(self, lease: Lease, work: Callable[[], Awaitable[None]]) -> None:
        self.leading = False
        """Whether `work` runs now."""
        self._lease = lease
        self._work = work
        self._sure_until = 0.0

    async def run(self) -> None:
        """Goes on for ever. Ends `work` before the lease does, and raises what `work` raises."""
        try:
            while True:
                if await self._hold():
                    await self._lead()
                await asyncio.sleep(self._pause)
        finally:
            await self._release()

    async def _lead(self) -> None:
        _log.info("leading")
        work = asyncio.ensure_future(self._work())
        self.leading = True
        try:
            while (left := self._sure_until - time.monotonic()) > 0:
                await asyncio.wait([work], timeout=min(left, self._pause))
                if work.done():
                    return await work
                if not await self._hold():
                    _log.warning("no longer leading: another process holds the lease")
                    return None
            _log.warning("no longer leading: the lease could not be renewed in time")
            return None
        finally:
            self.leading = False
            work.cancel()
            await asyncio.wait([work])

    async def _hold(self) -> bool:
        """Whether the lease may be held. While that cannot be asked it is what it was, up to the lease's end."""
        asked = time.monotonic()
        try:
            async with asyncio.timeout_at(self._patience(asked)):
                held = await asyncio.to_thread(self._lease.hold)
        except (Unavailable, TimeoutError) as error:
            _log.warning("the lease was not renewed: %s", error or "no answer")
            return asked < self._sure_until
        self._sure_until = asked + self._lease.seconds if held else 0.0
        return held

    def _patience(self, asked: float) -> float:
        """When to give up asking, by the loop's clock: the end of the lease that is held, else a whole lease from now."""
        left = self._sure_until - asked
        return asyncio.get_running_loop().time() + (left if left > 0 else self._lease.seconds)

    async def _release(self) -> None:
        if self._sure_until > time.monotonic():
            try:
                await asyncio.to_thread(self._lease.release)
            except Unavailable as error:
                _log.warning("the lease was not given up: %s", error)

    @property
    def _pause(self) -> float:
        return self._lease.seconds / 4
