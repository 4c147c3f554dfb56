"""What a backend's stream may look like, and what is charged for it then."""

import json

from api.router.faces.chat_stream import ChunkRelay
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
