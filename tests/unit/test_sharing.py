"""The process that runs gateways which share a port."""

import asyncio

import pytest

from cli import sharing
from cli.settings import Settings
from tests.waiting import PATIENCE

SHARED = Settings(listen="127.0.0.1:0", workers=2)


class Broken:
    """What keeps a gateway running, and has a bug."""

    async def run(self) -> None:
        raise ZeroDivisionError


async def test_a_bug_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not silently: gateways that nobody starts again would be missed by nobody else."""
    monkeypatch.setattr(sharing, "_gateway", lambda *_: Broken())
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ZeroDivisionError):
            await sharing.share(SHARED)


async def test_so_does_one_in_what_tells_that_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the ready line would wait for ever."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    async def goes_on(*_: object) -> None:
        await asyncio.Event().wait()

    kept = Broken()
    monkeypatch.setattr(kept, "run", goes_on)
    monkeypatch.setattr(sharing, "_gateway", lambda *_: kept)
    monkeypatch.setattr(sharing, "_announced", broken)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ZeroDivisionError):
            await sharing.share(SHARED)
