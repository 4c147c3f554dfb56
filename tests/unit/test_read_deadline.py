"""Bodies that do not come: the caller is told so, and nobody else is troubled."""

import asyncio

import pytest

from api.router.errors import RouterError
from api.router.exchange import ReadDeadline


async def test_a_stalled_body_ends_with_its_code() -> None:
    """408 `request_timeout`, and the task that read it goes on."""
    deadline = ReadDeadline(0.01)
    with pytest.raises(RouterError) as refused:
        await deadline.bound(asyncio.get_running_loop().create_future())
    assert refused.value.code == "request_timeout"
    assert await deadline.bound(_body()) == b"whole"


async def test_a_cancelled_reader_stays_cancelled() -> None:
    """Only the deadline's own cancellation becomes an answer."""
    deadline = ReadDeadline(60)
    task = asyncio.ensure_future(deadline.bound(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _body() -> bytes:
    return b"whole"
