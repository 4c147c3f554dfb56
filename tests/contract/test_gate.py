"""The gate in memory does what every gate must."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from commands.gate import Granted, RateClaim
from infra.adapters.memory_gate import MemoryGate
from infra.adapters.rate_window import RateWindow
from tests.contract.gate_contract import GateContract
from tests.contract.gate_contract_rates import RateContract
from tests.contract.gate_contract_shares import ShareContract
from tests.contract.gate_house import Clock, House, WholeGate, fact, rate


class TestMemoryGate(GateContract, RateContract, ShareContract):
    @asynccontextmanager
    async def gate(self, clock: Clock) -> AsyncIterator[WholeGate]:
        yield MemoryGate(2, clock, "run_1")


async def test_a_correction_of_the_clock_opens_no_window() -> None:
    """Rate limits are of sixty seconds that passed, not of sixty that the wall clock says."""
    clock, passed = Clock(), [1000.0]
    gate = MemoryGate(1, clock, "run_1", lambda: passed[0])
    house = House(gate, clock, "run_1")
    await house.open()
    one = (rate("requests", 1),)
    await house.hold("first", rates=one)
    clock.advance(59.0)
    passed[0] += 2.0
    assert (await house.refuse(rates=one)).retry_after == 58.0
    clock.advance(-59.0)
    passed[0] += 58.0
    await house.hold("second", rates=one)


async def test_rate_keys_that_are_idle_take_no_memory() -> None:
    """A minute after their last request; those in use stay."""
    clock = Clock()
    house = House(MemoryGate(1, clock, "run_1"), clock, "run_1")
    await house.open()
    before = _windows()
    for number in range(1000):
        claim = RateClaim(f"acme/key_{number}/requests", "requests", 1)
        assert isinstance(await house.ask(None, rates=(claim,)), Granted)
        clock.advance(0.25)
    await house.settle(fact("GateOpened"))
    assert _windows() - before == 239
    clock.advance(61.0)
    await house.hold("last", rates=(rate("requests", 1),))
    await house.settle(fact("GateOpened"))
    assert _windows() - before == 1


def _windows() -> int:
    """How many sliding windows there are in this process."""
    gc.collect()
    return sum(type(each) is RateWindow for each in gc.get_objects())
