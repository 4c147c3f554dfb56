"""Keeps a keyring current from a control topic that is elsewhere: asked and read in a thread, taken in on the event loop.

As `streams.keyring_follower`, it proves how current the view is: at local monotonic time t the topic is asked for its end;
having read past that end, the view is as of t. A process that is cut off from the topic stops being fresh by itself, however
long a question to the topic takes to fail.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from projections.keyring import Keyring
from projections.ports import LogReader, Record

LOOK_SECONDS = 0.15
"""Between two proofs on an idle topic. What comes into it is taken in at once."""

_READ = 2000


class ControlFollower:
    """`run` follows for ever; `reached` waits for a journal position. Use it on the keyring's event loop; `close` when done."""

    def __init__(self, keyring: Keyring, control: LogReader) -> None:
        self._keyring, self._control = keyring, control
        self._thread = ThreadPoolExecutor(1, "control")
        self._waiting: dict[asyncio.Future[None], int] = {}

    async def run(self) -> None:
        """Raises whatever reading or folding raises: the view then ages, and nobody is told that it is current."""
        while True:
            await self.step()

    async def step(self) -> None:
        """Takes in what there is, or what comes within `LOOK_SECONDS`, and proves the view."""
        loop = asyncio.get_running_loop()
        asked, end, records = await loop.run_in_executor(self._thread, self._look, self._keyring.offset)
        while records:
            self._keyring.apply(records)
            self._tell()
            records = await loop.run_in_executor(self._thread, self._read, self._keyring.offset, end)
        self._keyring.proved(asked)

    async def reached(self, position: int) -> None:
        """Returns once everything up to a journal position is in the topic and in the keyring."""
        if position <= self._keyring.position:
            return
        there = asyncio.get_running_loop().create_future()
        self._waiting[there] = position
        try:
            await there
        finally:
            del self._waiting[there]

    async def close(self) -> None:
        """Ends the thread, after the question that it is at, and gives the reader back."""
        await asyncio.to_thread(self._thread.shutdown)
        self._control.close()

    # -- inside

    def _look(self, offset: int) -> tuple[float, int, Sequence[Record]]:
        """When the topic was asked for its end, that end, and the first records before it."""
        self._control.wait([offset], LOOK_SECONDS)
        asked = time.monotonic()
        end = self._control.ends()[0]
        return asked, end, self._read(offset, end)

    def _read(self, offset: int, end: int) -> Sequence[Record]:
        return self._control.read(0, offset, _READ) if offset < end else ()

    def _tell(self) -> None:
        for there, wanted in self._waiting.items():
            if wanted <= self._keyring.position and not there.done():
                there.set_result(None)
