"""A child process that belongs to this one."""

import asyncio

from infra.adapters.child_process import ChildProcess
from tests.waiting import until


async def test_one_that_does_not_end_when_told_is_killed() -> None:
    """A child that never looks at its input is gone when the one that keeps it running was cancelled."""
    child = ChildProcess("http.server", ["0", "--bind", "127.0.0.1"], patience=0.1)
    running = asyncio.create_task(child.run())
    await until(lambda: child.pid is not None, "it runs")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert child.pid is None
