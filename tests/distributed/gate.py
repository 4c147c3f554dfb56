"""A gate of a test's own that can be lost: a Redis, a replica, and for each process an address that leads to one of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.distributed.house import House
from tests.distributed.switch import Switch, switch
from tests.redis_server import RedisServer, redis_server
from tests.waiting import eventually

WAYS = ("restarted empty", "restarted from an old snapshot", "stale replica promoted", "old primary in reach of one")


class LosableGate:
    """`addresses` in the order of `House.processes`; use `begin` instead of `House.begin`."""

    def __init__(self, house: House, primary: RedisServer, replica: RedisServer, ends: AsyncExitStack) -> None:
        self.house, self.primary, self.replica = house, primary, replica
        self._ends = ends
        self.addresses: dict[str, Switch] = {}

    async def begin(self, gateways: int, gatekeepers: int = 1, kafka: int | None = None) -> None:
        """Starts the processes, each with an address of its own that leads to the primary. `kafka`: the first gateway's port."""
        house = self.house
        for kind, count in (("gateway", gateways), ("gatekeeper", gatekeepers)):
            for number in range(count):
                address = await self._ends.enter_async_context(switch(self.primary.port))
                self.addresses[f"{kind}-{number}"] = address
                environ = {"TOLLHOUSE_REDIS": f"redis://127.0.0.1:{address.port}/0"}
                if kafka is not None and (kind, number) == ("gateway", 0):
                    environ["TOLLHOUSE_KAFKA"] = f"127.0.0.1:{kafka}"
                made = house.make(kind, **environ)
                (house.gateways if kind == "gateway" else house.gatekeepers).append(made)
        await house.begin(gateways=0, gatekeepers=0)

    def prepare(self, way: str) -> None:
        """What happens before the storm: the snapshot or replica that will be old."""
        if way == "restarted from an old snapshot":
            self.primary.ask("SAVE")
        elif way in WAYS[2:]:
            self.replica.ask("REPLICAOF", "127.0.0.1", self.primary.port)

    async def age(self, way: str) -> None:
        """From now on the replica does not hear of anything."""
        if way in WAYS[2:]:
            assert await eventually(self._linked, lambda status: status == "up") == "up"
            await asyncio.to_thread(self.replica.ask, "REPLICAOF", "127.0.0.1", 1)

    async def lose(self, way: str) -> None:
        """The gate is lost."""
        if way in WAYS[:2]:
            await asyncio.to_thread(self.primary.kill)
            await asyncio.to_thread(self.primary.start)
            return
        await asyncio.to_thread(self.replica.ask, "REPLICAOF", "NO", "ONE")
        for name, address in self.addresses.items():
            if way == "stale replica promoted" or name != "gateway-0":
                address.turn(self.replica.port)

    async def heal(self, way: str) -> None:
        """Whoever was left behind with the old primary is led to the new one too."""
        if way == WAYS[3]:
            self.addresses["gateway-0"].turn(self.replica.port)

    async def _linked(self) -> str:
        return await asyncio.to_thread(self.replica.info, "master_link_status")

    async def opened_again(self) -> None:
        """Returns once every gateway has seen the loss, and is ready again."""
        for gateway in self.house.gateways:
            assert await eventually(gateway.reasons, bool)
        for gateway in self.house.gateways:
            assert not await eventually(gateway.reasons, lambda reasons: not reasons)


@asynccontextmanager
async def losable_gate(house: House) -> AsyncIterator[LosableGate]:
    """One with nothing in it."""
    with redis_server() as primary, redis_server() as replica:
        async with AsyncExitStack() as ends:
            yield LosableGate(house, primary, replica, ends)
