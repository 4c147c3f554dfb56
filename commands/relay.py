"""The relay: journal to control topic, in commit order, each record chained to the one before.

It stops at the first failure and starts again from the topic's own tail, so nothing is ever queued behind a record
that may not have arrived; what is forwarded twice does not continue the chain, and readers ignore it.
"""

import asyncio
import logging

from commands.ports import ControlLog, Feed
from commands.positions import Positions
from domain.errors import LogUnavailable, Unavailable

POLL = 0.1
"""Seconds between looks at the journal when nobody wakes the relay."""

PATIENCE = 5.0
"""Seconds a command waits for its events to be forwarded."""

_BATCH = 500
_log = logging.getLogger("tollhouse.relay")


class Relay:
    """One leader's relay. `run` it as a task; `wait_for` is the commands' `acknowledged`."""

    def __init__(self, feed: Feed, log: ControlLog, poll: float = POLL, patience: float = PATIENCE) -> None:
        self.position = 0
        """The journal position of the last record known to be in the topic."""
        self._feed = feed
        self._log = log
        self._poll = poll
        self._patience = patience
        self._wake = asyncio.Event()
        self._positions = Positions()

    async def run(self) -> None:
        """Forwards for ever. A failing journal or topic is tried again; any other error ends it."""
        while True:
            try:
                await self._forward_from_tail()
            except Unavailable as error:
                _log.warning("relay stopped, starting again from the tail: %s", error)
                await asyncio.sleep(self._poll)

    def wake(self) -> None:
        """There is something to forward."""
        self._wake.set()

    async def wait_for(self, position: int) -> None:
        """Returns once everything up to `position` is in the topic. Raises `LogUnavailable` when that takes too long."""
        if position <= self.position:
            return
        self.wake()
        try:
            await self._positions.wait_for(position, self._patience)
        except TimeoutError:
            raise LogUnavailable(
                "the change is recorded but not yet forwarded; it will be once the log is back, repeat the command then"
            ) from None

    async def _forward_from_tail(self) -> None:
        self._reached(await self._log.tail())
        while True:
            self._wake.clear()
            events = await asyncio.to_thread(self._feed.after, self.position, _BATCH)
            if events:
                await self._log.forward(self.position, events)
                self._reached(events[-1].position)
                continue
            try:
                async with asyncio.timeout(self._poll):
                    await self._wake.wait()
            except TimeoutError:
                pass  # nobody called: looking anyway is what the poll is for

    def _reached(self, position: int) -> None:
        self.position = position
        self._positions.reached(position)
