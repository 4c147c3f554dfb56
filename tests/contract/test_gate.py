"""The gate in memory does what every gate must."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from infra.adapters.memory_gate import MemoryGate
from tests.contract.gate_contract import GateContract
from tests.contract.gate_contract_rates import RateContract
from tests.contract.gate_house import Clock, WholeGate


class TestMemoryGate(GateContract, RateContract):
    @asynccontextmanager
    async def gate(self, clock: Clock) -> AsyncIterator[WholeGate]:
        yield MemoryGate(2, clock, "run_1")
