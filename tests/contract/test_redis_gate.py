"""The gate on a real Redis does what every gate must."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from infra.adapters.redis_gate import RedisGate
from tests.contract.gate_contract import GateContract
from tests.contract.gate_contract_rates import RateContract
from tests.contract.gate_contract_shares import ShareContract
from tests.contract.gate_house import Clock, WholeGate
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as made:
        yield made


class TestRedisGate(GateContract, RateContract, ShareContract):
    @pytest.fixture(autouse=True)
    def _on(self, server: RedisServer) -> None:
        self.server = server

    @asynccontextmanager
    async def gate(self, clock: Clock) -> AsyncIterator[WholeGate]:
        self.server.ask("FLUSHALL")
        gate = RedisGate(self.server.url, 2, timeout=10.0, clock=clock)
        try:
            yield gate
        finally:
            await gate.close()
