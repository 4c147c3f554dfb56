"""Each gate does what every gate must: the one in memory, and the one on a real Redis."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from infra.adapters.memory_gate import MemoryGate
from infra.adapters.redis_gate import RedisGate
from tests.contract.gate_contract import GateContract
from tests.contract.gate_contract_rates import RateContract
from tests.contract.gate_house import Clock, WholeGate
from tests.redis_server import RedisServer, redis_server

PARTITIONS = 2
PATIENT = 10.0
"""Seconds for a reply: these tests are not about replies that do not come."""


class TestMemoryGate(GateContract, RateContract):
    @asynccontextmanager
    async def gate(self, clock: Clock) -> AsyncIterator[WholeGate]:
        yield MemoryGate(PARTITIONS, clock, "run_1")


class TestRedisGate(GateContract, RateContract):
    server: ClassVar[RedisServer]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def serve(cls) -> Iterator[None]:
        with redis_server() as cls.server:
            yield

    @asynccontextmanager
    async def gate(self, clock: Clock) -> AsyncIterator[WholeGate]:
        self.server.ask("FLUSHALL")
        gate = RedisGate(self.server.url, PARTITIONS, timeout=PATIENT, clock=clock)
        try:
            yield gate
        finally:
            await gate.close()
