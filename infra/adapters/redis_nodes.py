"""Which Redis server has which facts partition: one server, or the nodes of a Redis Cluster.

`identity` is what `Gate.run` answers: the run_id of every server that has a partition, so a node that was lost is a lost
gate. A partition that moved to another node is lost too: the scripts compare the node that opened it with the one asked.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from domain.errors import GateUnavailable
from infra.adapters.redis_wire import Connection, Script, Wire

PREFIX = "tollhouse"
"""What every key begins with. Stored format."""


def tag(partition: int) -> str:
    """What all keys of a partition begin with: its number is the hash tag, which alone decides their slot."""
    return f"{PREFIX}:{{{partition}}}"


class Nodes:
    """See the module. `url` as redis-py takes it (``redis://``, ``rediss://``, ``unix://``); of a cluster: any node's."""

    def __init__(self, url: str, partitions: int, timeout: float, scripts: Sequence[Script]) -> None:
        self._pool: Any = ConnectionPool.from_url(
            url, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), protocol=2
        )
        # The wire bounds replies by itself. redis-py's own bound is `asyncio.wait_for`, which before Python 3.12 may swallow
        # the cancellation that ends a connection.
        self._pool.connection_kwargs["socket_timeout"] = None
        self._partitions, self._timeout, self._scripts = range(partitions), timeout, scripts
        self._wires: dict[tuple[str, int] | None, Wire] = {}
        self._of: list[Wire] = []
        self._finding: asyncio.Task[list[Wire]] | None = None

    def known(self, partition: int) -> Wire | None:
        """The wire to the server of a partition, as far as is known now."""
        return self._of[partition] if self._of else None

    async def wire(self, partition: int) -> Wire:
        """The wire to the server of a partition. Raises `GateUnavailable`."""
        return (await self._all())[partition]

    async def identity(self) -> str:
        """Asks every server who it is. Raises `GateUnavailable`."""
        wires = dict.fromkeys(await self._all())
        infos = await asyncio.gather(*(wire.info() for wire in wires))
        return "+".join(sorted(info["run_id"] for info in infos))

    async def close(self) -> None:
        """Ends every connection."""
        await asyncio.gather(*(wire.close() for wire in self._wires.values()))

    # -- inside

    async def _all(self) -> list[Wire]:
        if self._of:
            return self._of
        if self._finding is None:
            self._finding = asyncio.create_task(self._find())
        finding = self._finding
        try:
            self._of = await asyncio.shield(finding)
        finally:
            if self._finding is finding and finding.done():
                self._finding = None
        return self._of

    async def _find(self) -> list[Wire]:
        """Asks the server of the URL, or another that was known, whether it is one of a cluster."""
        failure = GateUnavailable("Redis: no server is known")
        for place in [None, *(place for place in self._wires if place)]:
            wire = self._to(place)
            try:
                if (await wire.info())["cluster_enabled"] == "0":
                    return [wire] * len(self._partitions)
                return self._owners(await wire.command("CLUSTER", "SLOTS"), place)
            except GateUnavailable as error:
                failure = error
        raise failure

    def _owners(self, slots: list[Any], asked: tuple[str, int] | None) -> list[Wire]:
        found = []
        for partition in self._partitions:
            slot = key_slot(tag(partition).encode())
            owner = next((entry[2] for entry in slots if entry[0] <= slot <= entry[1]), None)
            if owner is None:
                raise GateUnavailable(f"no node of the Redis Cluster has slot {slot}")
            host, port = owner[0].decode(), int(owner[1])
            if not host:  # a node that does not know its own address: the one it was asked at
                host = asked[0] if asked else str(self._pool.connection_kwargs["host"])
            found.append(self._to((host, port)))
        return found

    def _to(self, place: tuple[str, int] | None) -> Wire:
        """The wire to a place; None is the server of the URL."""
        if place not in self._wires:
            self._wires[place] = Wire(lambda: self._connection(place), self._timeout, self._forget, self._scripts)
        return self._wires[place]

    def _connection(self, place: tuple[str, int] | None) -> Connection:
        if place is None:
            return self._pool.make_connection()
        return self._pool.connection_class(**self._pool.connection_kwargs | {"host": place[0], "port": place[1]})

    def _forget(self) -> None:
        """A connection ended: who has which partition is found out anew."""
        self._of = []
