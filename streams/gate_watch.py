"""Which gate there is now, and whether it is open for the epochs that this process knows of.

A gate that was restarted, or another one that took its place, has another identity; one that came back with an old memory of
its own has an old epoch. Both are seen here, by asking again and again.
"""

import asyncio
import logging
from typing import Protocol

from commands.gate import Gate, GateSink
from domain.errors import GateUnavailable

LOOK_SECONDS = 0.25

_log = logging.getLogger("tollhouse.gate")


class Watched(Gate, GateSink, Protocol):
    """Both sides of a gate."""


class Epochs(Protocol):
    """What is asked of the view of the control topic."""

    def epoch(self, partition: int) -> int: ...


class GateWatch:
    """`identity`: the gate's run, None before it was first asked. `open`: for all partitions, as of the last look."""

    def __init__(self, gate: Watched, epochs: Epochs, partitions: int) -> None:
        self.identity: str | None = None
        self.open = False
        self.answers = False
        """Whether it answered when it was last asked."""
        self._gate, self._epochs, self._partitions = gate, epochs, range(partitions)

    async def look(self) -> None:
        """Asks. Raises `GateUnavailable`: it is not known then whether anything was lost."""
        try:
            self.identity = await self._gate.run()
            opened = await asyncio.gather(*(self._opened(self.identity, partition) for partition in self._partitions))
        except GateUnavailable:
            self.answers = self.open = False
            raise
        self.answers = True
        if self.open != all(opened):
            self.open = all(opened)
            _log.info("the gate %s is %s", self.identity, "open" if self.open else "closed")

    async def _opened(self, run: str, partition: int) -> bool:
        """Settling nothing tells: it is done only in an open partition of this run and epoch."""
        epoch = self._epochs.epoch(partition)
        mark = await self._gate.watermark(partition)
        while mark is not None:
            if await self._gate.settle(partition, run, epoch, mark, ()):
                return True
            before, mark = mark, await self._gate.watermark(partition)
            if mark == before:
                return False
        return False
