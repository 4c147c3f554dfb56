"""Keeps a keyring current and proves how current it is.

At local monotonic time t the control topic is asked for its end; having read past that end, the view is as of t. So
freshness needs no comparison of clocks, and a gateway that cannot reach the topic stops being fresh by itself.
"""

import asyncio
import time
from contextlib import suppress

from domain.errors import Unavailable
from projections.keyring import Keyring
from projections.ports import LogReader

POLL_SECONDS = 0.05
_READ = 10_000


class KeyringFollower:
    """`step` reads what there is; `run` does so for ever, at once after `wake`."""

    def __init__(self, keyring: Keyring, control: LogReader) -> None:
        self._keyring, self._control = keyring, control
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

    def step(self) -> None:
        """Raises whatever reading or folding raises: the view then ages, and the gateway refuses."""
        asked = time.monotonic()
        end = self._control.ends()[0]
        while self._keyring.offset < end:
            self._keyring.apply(self._control.read(0, self._keyring.offset, _READ))
        self._keyring.proved(asked)

    def try_step(self) -> None:
        """As `step`; a topic that cannot be read leaves the view as old as it is."""
        with suppress(Unavailable):
            self.step()

    async def run(self) -> None:
        while True:
            self.step()
            self._wake.clear()
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue
