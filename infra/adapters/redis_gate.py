"""The gate on Redis, for any number of gateways: `Gate` and `GateSink`, each operation one atomic Lua script.

Guarantees what `docs/protocol.md` asks of a gate, as the gate in memory does. Everything of a facts partition is in keys
of one hash slot, so a Redis Cluster works. Redis needs neither persistence nor a replica, and may not evict: what a
restarted or promoted server remembers is closed to all, by its `run_id`. No call is repeated here: one whose answer was
lost may have been carried out, which admitting (idempotent), settling (compare-and-set) and the keeper take care of.

Not guaranteed: a server that was demoted, given an older copy of its own memory, and promoted again without a restart
is not told apart by its `run_id` alone; the epoch closes it as soon as the loss in between was fenced.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from commands.gate import AdmitRequest, Granted, OpenHold, Refused, Settled
from commands.ports import Clock
from domain.errors import Conflict, GateUnavailable
from domain.fold import Books
from domain.ids import PARTITIONS
from infra.adapters import redis_gate_codec as codec
from infra.adapters.redis_nodes import Nodes, tag
from infra.adapters.redis_wire import Bound, Script

TIMEOUT = 0.5
"""Seconds for connecting and for each reply; well within the time an admission has in all."""

KEYS = ("state", "budgets", "holds", "unlogged", "once", "slots", "rates", "due", "idle", "shares")
"""The keys of a partition, in the order the scripts take them. Stored format."""

SETTLE = 500
"""Facts per script call: Redis answers nobody else meanwhile."""

LOAD = 500
"""Buckets, holds or once-keys per script call of loading."""

EXPIRED = 1000
"""Unlogged holds that `expired` lists per partition at most, the oldest first."""

_CLOSED = Refused("gate_unavailable", retry_after=1.0)


def _script(name: str) -> Script:
    folder = Path(__file__).parent
    parts = ("base", "rates", name) if name == "admit" else ("base", name)
    return Script("\n".join((folder / f"redis_gate_{part}.lua").read_text() for part in parts))


class RedisGate:
    """See the module. `url` as redis-py takes it; of a cluster, that of any node. Use it on one event loop.

    `clock`: None is the server's own, the one that all gateways share.
    """

    def __init__(
        self, url: str, partitions: int = PARTITIONS, *, timeout: float = TIMEOUT, clock: Clock | None = None
    ) -> None:
        self._clock, self._partitions = clock, range(partitions)
        keys = [tuple(f"{tag(number)}:{key}".encode() for key in KEYS) for number in self._partitions]
        scripts = []

        def bound(name: str) -> list[Bound]:
            script = _script(name)
            scripts.append(script)
            return [script.bind(each) for each in keys]

        self._admit, self._capture, self._settle = bound("admit"), bound("capture"), bound("settle")
        self._begin, self._load = bound("begin"), bound("load")
        self._expired, self._watermark = bound("expired"), bound("watermark")
        self._nodes = Nodes(url, partitions, timeout, scripts)

    async def close(self) -> None:
        """Ends the connections; what is in flight fails."""
        await self._nodes.close()

    # -- Gate

    async def run(self) -> str:
        """See `commands.gate.Gate`. Asks the servers. Raises `GateUnavailable`, also where Redis may evict keys."""
        return await self._nodes.identity()

    async def admit(self, request: AdmitRequest) -> Granted | Refused:
        """See `commands.gate.Gate`. ``gate_unavailable`` also when Redis does not answer."""
        argument = codec.admission(request, self._now())
        try:
            reply = await self._call(self._admit, request.partition, argument)
        except GateUnavailable:
            return _CLOSED
        return codec.admitted(reply)

    def capture(self, partition: int, attempt: str, actual: int, tokens: int | None = None) -> None:
        """See `commands.gate.Gate`. Leaves with the calls of this tick; if it is lost, settling does the same."""
        wire = self._nodes.known(partition)
        if wire is not None:
            argument = codec.pack((None, attempt, min(actual, codec.MAX), tokens))
            wire.call(self._capture[partition], argument).add_done_callback(_let_go)

    async def expired(self, before: datetime) -> Sequence[OpenHold]:
        """See `commands.gate.Gate`. At most `EXPIRED` of each partition. Raises `GateUnavailable`."""
        argument = codec.pack((None, codec.micros(before), EXPIRED))
        found = await asyncio.gather(*(self._call(self._expired, number, argument) for number in self._partitions))
        return [
            OpenHold(number, *member.decode().split("/", 1))
            for number, members in zip(self._partitions, found, strict=True)
            for member in members
        ]

    async def begin(self, partition: int, run: str, epoch: int) -> None:
        """See `commands.gate.Gate`. Raises `GateUnavailable` too, also when `run` is not this gate."""
        answer = await self._call(self._begin, partition, codec.pack((None, run, epoch)))
        if answer < 0:
            raise GateUnavailable(f"the gate was lost since it was asked who it is: it is not {run}")
        if not answer:
            raise Conflict(f"gate {partition} is at an epoch that {epoch} is not above", code="stale_epoch")

    async def finish(self, partition: int, run: str, epoch: int, watermark: int, books: Books) -> None:
        """See `commands.gate.Gate`. Raises `Conflict` if it is open or in another epoch, `GateUnavailable`."""
        for piece in codec.pieces(books, LOAD):
            await self._load_piece(partition, (None, run, epoch, None, *piece))
        await self._load_piece(partition, (None, run, epoch, watermark, [], [], []))

    # -- GateSink

    async def settle(self, partition: int, run: str, epoch: int, start: int, facts: Sequence[Settled]) -> bool:
        """See `commands.gate.GateSink`. `SETTLE` facts are one step, more are several. Raises `GateUnavailable`."""
        for offset in range(0, max(len(facts), 1), SETTLE):
            some = facts[offset : offset + SETTLE]
            arguments = (self._now(), run, epoch, start + offset, len(some), codec.settling(some))
            if not await self._call(self._settle, partition, codec.pack(arguments)):
                return False
        return True

    async def watermark(self, partition: int) -> int | None:
        """See `commands.gate.GateSink`. Raises `GateUnavailable`."""
        found = await self._call(self._watermark, partition, codec.pack((None,)))
        return None if found is None else int(found)

    # -- inside

    def _now(self) -> int | None:
        return None if self._clock is None else codec.micros(self._clock())

    async def _call(self, bound: list[Bound], partition: int, argument: bytes) -> Any:
        wire = self._nodes.known(partition) or await self._nodes.wire(partition)
        return await wire.call(bound[partition], argument)

    async def _load_piece(self, partition: int, arguments: tuple[Any, ...]) -> None:
        if not await self._call(self._load, partition, codec.pack(arguments)):
            raise Conflict(f"gate {partition} is open, or began another epoch meanwhile", code="stale_epoch")


def _let_go(capture: "asyncio.Future[Any]") -> None:
    """A capture that failed: the wire has said so, and settling ends the hold."""
    if not capture.cancelled():
        capture.exception()
