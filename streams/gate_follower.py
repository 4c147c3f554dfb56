"""Settles the gate from a facts topic that is elsewhere, so that holds end: the gate's own watermark says what comes next.

Any number of processes may settle one gate: each step is a compare-and-set of the watermark, so what two do at once is done
once. Those that are not `eager` only step in where the watermark stands still although there are facts, and go on there as long
as nobody else does: holds end also while nobody can say whose task that is.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from commands.gate import GateSink, Settled
from projections.ports import LogReader
from streams.gate_settler import settled

READ = 2000
"""Facts of a partition settled at a time."""

LOOK_SECONDS = 0.05
STILL_SECONDS = 1.0
"""How long a watermark stands still before one that is not eager moves it."""


class GateFollower:
    """`identity` is the run of the gate in use, None while that is not known; `epoch` the epoch in force of a partition."""

    def __init__(
        self,
        gate: GateSink,
        facts: LogReader,
        identity: Callable[[], str | None],
        epoch: Callable[[int], int],
        eager: Callable[[], bool],
    ) -> None:
        self._gate, self._facts = gate, facts
        self._identity, self._epoch, self._eager = identity, epoch, eager
        self._thread = ThreadPoolExecutor(1, "settling")

    async def run(self) -> None:
        """Settles for ever. Raises `Unavailable` when gate or log do not answer: run it again then."""
        standing: Mapping[int, int] = {}
        mine: Mapping[int, int] = {}
        while True:
            marks, eager = await self._marks(), self._eager()
            wanted = {p: mark for p, mark in marks.items() if eager or mark in (standing.get(p), mine.get(p))}
            mine = await self._settle(wanted)
            if not mine:
                await asyncio.sleep(LOOK_SECONDS if eager else STILL_SECONDS)
                standing = marks

    async def close(self) -> None:
        """Ends the thread, after the question that it is at, and gives the reader back."""
        await asyncio.to_thread(self._thread.shutdown)
        self._facts.close()

    # -- inside

    async def _marks(self) -> dict[int, int]:
        """The watermark of each partition that is open."""
        partitions = range(self._facts.partitions)
        marks = await asyncio.gather(*(self._gate.watermark(partition) for partition in partitions))
        return {p: mark for p, mark in zip(partitions, marks, strict=True) if mark is not None}

    async def _settle(self, marks: Mapping[int, int]) -> dict[int, int]:
        """Settles the next facts of each partition; the new watermarks of those where there were such."""
        run = self._identity()
        if run is None or not marks:
            return {}
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, marks)
        done = await asyncio.gather(
            *(self._gate.settle(p, run, self._epoch(p), marks[p], facts) for p, facts in found.items())
        )
        return {p: marks[p] + len(facts) for (p, facts), taken in zip(found.items(), done, strict=True) if taken}

    def _read(self, marks: Mapping[int, int]) -> Mapping[int, list[Settled]]:
        ends = self._facts.ends()
        return {
            partition: [settled(record.value) for record in self._facts.read(partition, start, READ)]
            for partition, start in marks.items()
            if start < ends[partition]
        }
