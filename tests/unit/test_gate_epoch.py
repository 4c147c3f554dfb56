"""Gate epochs: each fencing is one above the last."""

from domain import gate_epoch
from domain.gate_epoch import FenceGate, GateFenced
from tests.unit.decider import given


def test_each_fencing_is_a_new_epoch() -> None:
    """The first is 1; fencing is never a repetition of itself."""
    first = given(gate_epoch).when(FenceGate(partition=3)).then(GateFenced(partition=3, epoch=1))
    first.when(FenceGate(partition=3)).then(GateFenced(partition=3, epoch=2))
