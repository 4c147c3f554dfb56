"""Keeps a keyring current from a control topic that is elsewhere: asked and read in a thread, taken in on the event loop.

As `streams.keyring_follower`, it proves how current the view is: at local monotonic time t the topic is asked for its end;
having read past that end, the view is as of t. A process that is cut off from the topic stops being fresh by itself, however
long a question to the topic takes to fail.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from commands.positions import Positions
from projections.keyring import Keyring
from projections.ports import LogReader, Record

T = TypeVar("T")

LOOK_SECONDS = 0.15
"""How long an idle topic is watched before the view is proved again. What comes into it is taken in at once."""

PROOF_SECONDS = 0.05
"""Between two proofs while something comes into the topic all the time."""

_READ = 2000


class ControlFollower:
    """`run` follows for ever; `reached` waits for a journal position. Use it on the keyring's event loop; `close` when done."""

    def __init__(self, keyring: Keyring, control: LogReader) -> None:
        self._keyring, self._control = keyring, control
        self._thread = ThreadPoolExecutor(1, "control")
        self._positions = Positions()
        self._fed = False
        """Whether what came last did not have to be read."""

    async def run(self) -> None:
        """Raises whatever reading or folding raises: the view then ages, and nobody is told that it is current."""
        while True:
            await self.step()

    async def step(self) -> None:
        """Takes in what there is, or what comes within `LOOK_SECONDS`, and proves the view."""
        if self._fed:
            self._fed = False
            await asyncio.sleep(PROOF_SECONDS)
        elif self._take_in(await self._in_thread(self._next)) and self._keyring.age(time.monotonic()) < PROOF_SECONDS:
            return
        asked, end = await self._in_thread(self._end)
        while self._keyring.offset < end:
            self._take_in(await self._in_thread(self._read))
        self._keyring.proved(asked)

    def landed(self, records: Sequence[Record]) -> None:
        """Takes in, without reading them, records that this process has put into the topic, in their order: where nothing is in
        the topic between them and what is in the view. Else they are read with what is."""
        expected = range(self._keyring.offset, self._keyring.offset + len(records))
        if [record.offset for record in records] == list(expected):
            self._take_in(records)
            self._fed = True

    async def reached(self, position: int, patience: float | None = None) -> None:
        """Returns once everything up to a journal position is in the topic and in the keyring. Raises `TimeoutError` after
        `patience` seconds."""
        if position > self._keyring.position:
            await self._positions.wait_for(position, patience)

    async def close(self) -> None:
        """Ends the thread, after the question that it is at, and gives the reader back."""
        await asyncio.to_thread(self._thread.shutdown)
        self._control.close()

    # -- inside

    def _take_in(self, records: Sequence[Record]) -> bool:
        """Whether there was anything; what is in the view already is passed over."""
        offset = self._keyring.offset
        if records and records[0].offset < offset:
            records = [record for record in records if record.offset >= offset]
        if not records:
            return False
        self._keyring.apply(records)
        self._positions.reached(self._keyring.position)
        return True

    async def _in_thread(self, question: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, question)

    def _next(self) -> Sequence[Record]:
        """What is or comes into the topic within `LOOK_SECONDS`."""
        offset = self._keyring.offset
        return self._control.read(0, offset, _READ) if self._control.wait([offset], LOOK_SECONDS) else ()

    def _end(self) -> tuple[float, int]:
        """When the topic was asked for its end, and that end."""
        asked = time.monotonic()
        return asked, self._control.ends()[0]

    def _read(self) -> Sequence[Record]:
        return self._control.read(0, self._keyring.offset, _READ)
