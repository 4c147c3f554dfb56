"""Waiting for views to have what a caller names. A view is asked once for all who wait for it, and only while somebody does."""

import asyncio
from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool

from projections.reads.freshness import Freshness, Position

POLL_SECONDS = 0.015
"""Between two questions to a view that somebody waits for."""


class Arrivals:
    """On one event loop."""

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness
        self._views: dict[str, _Waiting] = {}

    async def reached(self, views: Sequence[str], positions: Sequence[Position], seconds: float) -> bool:
        """Whether each of `views` has those of `positions` that concern it, now or within `seconds`. Raises `Unavailable`."""
        concerned = self._freshness.concerned(views, positions)
        try:
            async with asyncio.timeout(seconds):
                for view in concerned:
                    await self._view(view).reached(positions)
        except TimeoutError:
            return False
        return True

    def _view(self, name: str) -> "_Waiting":
        found = self._views.get(name)
        if found is None or found.over:
            found = self._views[name] = _Waiting(self._freshness, name)
        return found


class _Waiting:
    """Those who wait for one view, until nobody does."""

    def __init__(self, freshness: Freshness, view: str) -> None:
        self._freshness, self._view = freshness, view
        self._wanted: dict[asyncio.Future[None], Sequence[Position]] = {}
        self._came = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        return self._asking is not None and self._asking.done()

    async def reached(self, positions: Sequence[Position]) -> None:
        there = asyncio.get_running_loop().create_future()
        self._wanted[there] = positions
        self._came.set()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        try:
            await there
        finally:
            self._wanted.pop(there, None)

    async def _ask(self) -> None:
        while self._wanted:
            self._came.clear()
            await self._ask_once()
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._came.wait()
            except TimeoutError:
                pass

    async def _ask_once(self) -> None:
        """Whoever comes meanwhile is told by the next question: it must begin after he came."""
        asked = dict(self._wanted)
        try:
            have = await run_in_threadpool(self._freshness.have, self._view, list(asked.values()))
        except Exception as error:  # noqa: BLE001  # those who wait raise it
            for there in asked:
                if not there.done():
                    there.set_exception(error)
                self._wanted.pop(there, None)
            return
        for there, yes in zip(asked, have, strict=True):
            if yes:
                self._wanted.pop(there, None)
                if not there.done():
                    there.set_result(None)
