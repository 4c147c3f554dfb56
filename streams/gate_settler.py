"""Feeds committed facts to the gate, so that holds end. Its own consumer: no other view's outage may keep holds from ending.

Facts arrive as the log commits them; after a gap (the gate was closed meanwhile) they are read from the log.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from commands.ports import GateSink, Settled
from projections.ports import LogReader

_READ = 2000


class _Data(msgspec.Struct):
    attempt: str = ""
    cost: int = 0


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
        self._wake = asyncio.Event()

    def committed(self, partition: int, first: int, bodies: Sequence[bytes]) -> None:
        """Facts [first, first + len(bodies)) of a partition are in the log."""
        self._arrived.append((partition, first, bodies))
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._arrived:
                await self._take(*self._arrived.popleft())

    async def _take(self, partition: int, first: int, bodies: Sequence[bytes]) -> None:
        watermark = await self._gate.watermark(partition)
        if watermark is None:
            return  # closed: opening it folds these, and the next facts find the gap
        while watermark is not None and watermark < first:
            records = self._reader.read(partition, watermark, _READ)
            missed = [record.value for record in records if record.offset < first]
            if not await self._settle(partition, watermark, missed):
                return  # another epoch meanwhile: the next facts find the gap
            watermark = await self._gate.watermark(partition)
        if watermark is not None and watermark < first + len(bodies):
            await self._settle(partition, watermark, bodies[watermark - first :])

    async def _settle(self, partition: int, start: int, bodies: Sequence[bytes]) -> bool:
        facts = [settled(body) for body in bodies]
        return await self._gate.settle(partition, self._run, self._epoch(partition), start, facts)


def settled(body: bytes) -> Settled:
    """An undecodable fact settles nothing: its hold stays until the fact was repaired."""
    try:
        fact = _decode(body)
    except msgspec.MsgspecError:
        return Settled("")
    return Settled(fact.type, fact.data.attempt, fact.data.cost)
