"""Records that come from outside: a backend's journal, and events of the control topic."""

from datetime import UTC, datetime

import msgspec
import pytest

from commands.reconcile import MOST_TOKENS, Served, read_served
from domain.envelope import Envelope, encode
from domain.errors import Invalid
from domain.facts import Usage
from domain.gate_epoch import GateFenced
from projections.keyring import Keyring
from projections.ports import Record


@pytest.mark.parametrize(
    "figures",
    [
        {"prompt_tokens": 1, "completion_tokens": 1, "cached_tokens": 2},
        {"prompt_tokens": 1, "completion_tokens": 1, "reasoning_tokens": 2},
        {"prompt_tokens": MOST_TOKENS + 1, "completion_tokens": 1},
    ],
)
def test_a_record_that_cannot_be_true_is_refused_by_its_line(figures: dict[str, int]) -> None:
    """More cached than prompt tokens would make a negative cost, and a number beyond all counts would stop the books."""
    good = {"request_id": "req_1", "prompt_tokens": 2, "completion_tokens": 2, "cached_tokens": 2}
    assert read_served([good]) == [Served("req_1", Usage(cached_input=2, output=2))]
    with pytest.raises(Invalid) as refused:
        read_served([good, {"request_id": "req_2", **figures}])
    assert [error.field for error in refused.value.errors] == ["records[2]"]


def test_an_event_that_cannot_be_taken_in_is_never_passed_over() -> None:
    """A second look does not make the view current without it: what comes behind it could be a revocation."""
    keyring = Keyring()
    records = [Record(0, 0, b'{"broken"', 1, 0), Record(0, 1, _fenced(), 2, 1)]
    for _ in range(2):
        with pytest.raises(msgspec.DecodeError):
            keyring.apply(records)
        assert (keyring.offset, keyring.position) == (0, 0)
    keyring.apply([Record(0, 0, _fenced(), 1, 0), records[1]])
    assert (keyring.offset, keyring.position) == (2, 2)


def _fenced() -> bytes:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    event = GateFenced(partition=0, epoch=1)
    return encode(
        Envelope(id="evt_1", type="GateFenced", org="_", stream="_/gate/0", version=1, occurred_at=at, data=event)
    )
