"""Feeds committed facts to the gate, so that holds end. Its own consumer: no other view's outage may keep holds from ending.

Facts arrive as the log commits them; after a gap (the gate was closed meanwhile, or did not answer) they are read from the
log, as soon as the gate takes them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from commands.gate import GateSink, Settled
from domain.facts import Usage
from projections.ports import LogReader

_READ = 2000

_AGAIN_SECONDS = 0.1
"""How often a partition is looked at that is behind."""


class _Data(msgspec.Struct):
    attempt: str = ""
    cost: int = 0
    usage: Usage | None = None


class _Light(msgspec.Struct):
    """Only what settling needs: the rest of a fact stays undecoded."""

    type: str
    data: _Data


_decode = msgspec.json.Decoder(_Light).decode


class GateSettler:
    """`committed` may be called at any time; `run` settles until it is cancelled. `epoch` is the epoch of a partition."""

    def __init__(self, gate: GateSink, reader: LogReader, run: str, epoch: Callable[[int], int]) -> None:
        self._gate, self._reader, self._run, self._epoch = gate, reader, run, epoch
        self._arrived: deque[tuple[int, int, Sequence[bytes]]] = deque()
        self._behind: set[int] = set()
        """Partitions with facts that are not settled."""
        self._wake = asyncio.Event()

    def committed(self, partition: int, first: int, bodies: Sequence[bytes]) -> None:
        """Facts [first, first + len(bodies)) of a partition are in the log."""
        self._arrived.append((partition, first, bodies))
        self._wake.set()

    async def run(self) -> None:
        """Settles for ever. Raises `Unavailable` when gate or log do not answer: run it again then."""
        while True:
            for partition in sorted(self._behind):
                await self._catch_up(partition)
            await self._called()
            while self._arrived:
                await self._take(*self._arrived.popleft())

    async def _called(self) -> None:
        """Returns when facts have come, or when it is time to look at what is behind."""
        if self._behind:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _AGAIN_SECONDS)
        else:
            await self._wake.wait()
        self._wake.clear()

    async def _take(self, partition: int, first: int, bodies: Sequence[bytes]) -> None:
        """Settles what has come, unless something before it is not settled: that comes first, from the log."""
        if partition in self._behind:
            return
        self._behind.add(partition)
        watermark = await self._gate.watermark(partition)
        if watermark is None:
            return
        if watermark < first:
            await self._catch_up(partition)
        elif watermark >= first + len(bodies) or await self._settle(partition, watermark, bodies[watermark - first :]):
            self._behind.discard(partition)

    async def _catch_up(self, partition: int) -> None:
        """Settles everything that the log has. A partition that is closed, or open for another epoch, stays behind."""
        watermark = await self._gate.watermark(partition)
        while watermark is not None:
            records = self._reader.read(partition, watermark, _READ)
            if not records:
                self._behind.discard(partition)
                return
            if not await self._settle(partition, watermark, [record.value for record in records]):
                return
            watermark = await self._gate.watermark(partition)

    async def _settle(self, partition: int, start: int, bodies: Sequence[bytes]) -> bool:
        facts = [settled(body) for body in bodies]
        return await self._gate.settle(partition, self._run, self._epoch(partition), start, facts)


def settled(body: bytes) -> Settled:
    """An undecodable fact settles nothing: its hold stays until the fact was repaired."""
    try:
        fact = _decode(body)
    except msgspec.MsgspecError:
        return Settled("")
    data = fact.data
    return Settled(fact.type, data.attempt, data.cost, None if data.usage is None else data.usage.total)
