"""Waiting for what must come true: conditions that are asked again until a bounded deadline, never a sleep that hopes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 90.0
"""Seconds. Generous: a deadline bounds a hang, it measures nothing."""


async def until(holds: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Returns once `holds()`. Raises `AssertionError` saying that `what` did not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.005)


async def eventually(get: Callable[[], Awaitable[T]], holds: Callable[[T], bool], seconds: float = PATIENCE) -> T:
    """The first answer of `get` for which `holds`, or the last one when the deadline is over: the caller asserts."""
    deadline = time.monotonic() + seconds
    while True:
        value = await get()
        if holds(value) or time.monotonic() >= deadline:
            return value
        await asyncio.sleep(0.02)
