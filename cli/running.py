"""What runs for ever in a process: work that outlives outages of what it needs, and ends the process if it has a bug."""

import asyncio
import gc
import logging
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from domain.errors import Unavailable

AGAIN = 0.2
"""Seconds before work whose needs were unavailable is tried again."""

GC_THRESHOLDS = (50_000, 20, 50)
"""Objects made and not freed between two searches for cycles; searches between two of the next generation; and of the last."""

MOST_INFLIGHT = 10_000
"""Of `usual_inflight`: so many streams take about a gigabyte."""

_TELL_AGAIN = 10.0
_log = logging.getLogger("tollhouse")


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """`work`, again and again, with a pause between."""
    while True:
        await work()
        await asyncio.sleep(seconds)


async def kept_running(name: str, work: Callable[[], Awaitable[None]], failed: "asyncio.Future[None]") -> None:
    """Runs `work` for ever: what is unavailable is tried again, a bug ends the process, which `failed` tells."""
    told, at = "", 0.0
    while True:
        try:
            await work()
        except Unavailable as error:
            if error.message != told or time.monotonic() - at > _TELL_AGAIN:
                told, at = error.message, time.monotonic()
                _log.warning("%s: %s", name, error)
            await asyncio.sleep(AGAIN)
        except Exception as error:
            _log.exception("%s ended", name)
            if not failed.done():
                failed.set_exception(error)
            raise


def allow_many_files() -> None:
    """A connection is a file: as many as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1 << 20
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, 1 << 20), hard))


def usual_inflight() -> int:
    """Requests that a process has under way at a time where nothing else was set: each takes two connections, the caller's and
    the backend's, and some are needed for everything else."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(MOST_INFLIGHT, (files - 1000) // 2))


def search_cycles_seldom() -> None:
    """What a request or a batch makes is freed by its counts: hardly any of it is in a cycle."""
    gc.set_threshold(*GC_THRESHOLDS)


def keep_start_in_memory() -> None:
    """What the start made stays, and is not searched again."""
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def running(
    failed: "asyncio.Future[None]", works: Mapping[str, Callable[[], Awaitable[None]]]
) -> AsyncIterator[None]:
    """Keeps `works` running, by name, until the context ends."""
    tasks = [asyncio.create_task(kept_running(name, work, failed)) for name, work in works.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
