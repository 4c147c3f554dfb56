"""Write-offs: ordered once, with a reason."""

import pytest

from domain import write_off
from domain.write_off import OrderWriteOff, RequestWriteOffOrdered
from tests.unit.decider import given

ORDER = OrderWriteOff(request="req_1", attempt="req_1.2", reason="backend gone")


def test_a_write_off_is_ordered_once() -> None:
    """Ordering it again, for whatever reason, changes nothing."""
    event = RequestWriteOffOrdered(request="req_1", attempt="req_1.2", reason="backend gone")
    given(write_off).when(ORDER).then(event).when(ORDER).then_nothing_happened()


@pytest.mark.parametrize("reason", ["", "  ", "a\x00b", "x" * 501])
def test_it_needs_a_reason(reason: str) -> None:
    """`invalid_field` naming `reason`."""
    command = OrderWriteOff(request="req_1", attempt="req_1", reason=reason)
    given(write_off).when(command).then_refused("invalid_field", "reason")
