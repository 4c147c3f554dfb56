"""What a backend's stream may look like, and what is charged for it then."""

import json
from typing import Any

import pytest

from api.router.faces.chat_stream import ChunkRelay
from api.router.faces.messages_stream import MessagesRelay
from domain.facts import Usage

CONTENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
LAST = Usage(input=7, output=50)


def usage(completion: int) -> bytes:
    """A chunk that holds nothing but usage."""
    report = {"prompt_tokens": 7, "completion_tokens": completion}
    return b"data: " + json.dumps({"choices": [], "usage": report}).encode() + b"\n\n"


def test_the_last_of_several_reports_counts_whoever_asked() -> None:
    """A report before the first token is not the final one, also where the caller asked for usage."""
    for asked in (True, False):
        relay = ChunkRelay(asked, 1000)
        passed = relay.feed(usage(0) + CONTENT + usage(50) + DONE)
        relay.end()
        assert relay.usage == LAST
        assert (passed + relay.rest()).count(b'"usage"') == (2 if asked else 0)


def test_words_behind_an_early_report_pass_at_once() -> None:
    """To who asked for usage, with the report before them: only the last one waits for the books, and each piece is counted."""
    relay = ChunkRelay(True, 1000)
    assert relay.feed(usage(0)) == b""
    assert relay.feed(CONTENT) == usage(0) + CONTENT
    assert relay.feed(CONTENT) == CONTENT
    assert relay.feed(usage(50) + b": still here\n\n") == b""
    assert relay.feed(DONE) == b""
    relay.end()
    assert (relay.pieces, relay.rest()) == (2, usage(50) + b": still here\n\n" + DONE)


def test_a_last_event_without_a_blank_line_is_an_event() -> None:
    """Usage at the very end of a stream that ends without a blank line is found, and hidden from who did not ask."""
    for asked in (True, False):
        relay = ChunkRelay(asked, 1000)
        passed = relay.feed(CONTENT + usage(50).rstrip())
        relay.end()
        assert relay.usage == LAST
        assert passed == CONTENT
        assert relay.rest() == (usage(50).rstrip() if asked else b"")


def test_only_an_announced_end_is_one() -> None:
    """`done` follows from ``[DONE]`` alone, with or without its blank line."""
    relay = ChunkRelay(False, 1000)
    relay.feed(CONTENT + usage(50))
    assert not relay.done
    relay.feed(b"data: [DONE]")
    relay.end()
    assert relay.done


def test_a_null_elsewhere_hides_no_report() -> None:
    """Some backends have a member `usage` in each choice, too; and Go's servers write null for a list of none."""
    report = b'"usage":{"prompt_tokens":7,"completion_tokens":50}'
    both = b'data: {"choices":[{"index":0,"delta":{},"usage":null}],' + report + b"}\n\n"
    none = b'data: {"choices":null,' + report + b"}\n\n"
    for last in (both, none):
        for asked in (True, False):
            relay = ChunkRelay(asked, 1000)
            passed = relay.feed(CONTENT + last + DONE)
            relay.end()
            assert relay.usage == LAST
            assert (report in passed + relay.rest()) is asked


def test_nulls_are_hidden_wherever_they_stand() -> None:
    """From who did not ask: they carry nothing."""
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"usage":null}],"usage":null}\n\n'
    assert b"usage" not in ChunkRelay(False, 1000).feed(chunk)
    assert ChunkRelay(True, 1000).feed(chunk) == chunk


@pytest.mark.parametrize(
    ("began", "later", "expected"),
    [
        ({"input_tokens": 90}, [{"input_tokens": 0, "output_tokens": 5}], Usage(input=90, output=5)),
        ({"input_tokens": 90}, [{"input_tokens": 10, "cache_read_input_tokens": 80, "output_tokens": 5}],
         Usage(input=10, cached_input=80, output=5)),
        ({"input_tokens": 9, "cache_read_input_tokens": 80},
         [{"input_tokens": 9, "cache_read_input_tokens": 0, "output_tokens": 5}],
         Usage(input=9, cached_input=80, output=5)),
        ({"input_tokens": 0}, [{"input_tokens": 90, "output_tokens": 5}], Usage(input=90, output=5)),
        ({"input_tokens": 90}, [{"output_tokens": 5}, {"output_tokens": 0}], Usage(input=90, output=5)),
        ({"input_tokens": 90}, [{"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 3}}, {"output_tokens": 8}],
         Usage(input=90, output=5, reasoning=3)),
        ({"input_tokens": 90}, [{"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 3}}, {"output_tokens": 0}],
         Usage(input=90, output=2, reasoning=3)),
    ],
)  # fmt: skip
def test_a_later_report_of_a_message_takes_nothing_back(began: Any, later: list[Any], expected: Usage) -> None:
    """They are cumulative. Some backends say zero for what they told before; what moves from fresh to cached is believed."""
    relay = MessagesRelay(1000)
    relay.feed(event({"type": "message_start", "message": {"usage": began}}))
    for usage_so_far in later:
        relay.feed(event({"type": "message_delta", "usage": usage_so_far}))
    assert relay.usage == expected


def event(said: Any) -> bytes:
    return b"data: " + json.dumps(said).encode() + b"\n\n"
