"""Usage of Anthropic's messages: what making a long conversation shorter took is among the iterations alone."""

import json
from typing import Any

import pytest

from api.router.faces.messages_stream import MessagesRelay
from api.router.faces.messages_usage import usage_of_message
from domain.facts import Usage

CEILING = 100

MESSAGE = {"type": "message", "input_tokens": 20, "output_tokens": 10}
COMPACTION = {
    "type": "compaction",
    "input_tokens": 90,
    "output_tokens": 7,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 3,
}


def report(iterations: Any) -> dict[str, Any]:
    return {"input_tokens": 20, "output_tokens": 10, "cache_read_input_tokens": 5, "iterations": iterations}


@pytest.mark.parametrize(
    ("iterations", "expected"),
    [
        (None, Usage(input=20, cached_input=5, output=10)),
        ([], Usage(input=20, cached_input=5, output=10)),
        ([MESSAGE], Usage(input=20, cached_input=5, output=10)),
        ([COMPACTION, MESSAGE], Usage(input=110, cached_input=9, cache_write=3, output=17)),
        ([COMPACTION, {}, 7, COMPACTION], Usage(input=200, cached_input=13, cache_write=6, output=24)),
        ([{**COMPACTION, "output_tokens": -1}], Usage(input=20, cached_input=5, output=10)),
        ([{**COMPACTION, "input_tokens": CEILING}], Usage(input=20, cached_input=5, output=10)),
        ("many", Usage(input=20, cached_input=5, output=10)),
    ],
)
def test_compactions_are_added_and_nothing_is_counted_twice(iterations: Any, expected: Usage) -> None:
    """The members beside them have the runs that made the message; what cannot be true is passed over."""
    assert usage_of_message(json.dumps({"usage": report(iterations)}).encode(), CEILING) == expected
    relay = MessagesRelay(CEILING)
    for event in (
        {"type": "message_start", "message": {"usage": {"input_tokens": 20, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {}, "usage": report(iterations)},
    ):
        relay.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert relay.usage == expected
