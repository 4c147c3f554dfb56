"""Relaying a stream: whoever cut it into pieces, the caller gets the same bytes and the books the same usage."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.router.faces import chat_stream, sse
from api.router.faces.chat_stream import ChunkRelay
from api.router.faces.sse import Events, last_boundary
from domain.facts import Usage

CEILING = 1000
DONE = b"data: [DONE]\n\n"
REPORT: dict[str, Any] = {"prompt_tokens": 7, "completion_tokens": 50, "total_tokens": 57}
SERVED = Usage(input=7, output=50)
DELTA: list[Any] = [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]


def event(choices: list[Any], end: bytes = b"\n", **more: Any) -> bytes:
    body = json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices, **more})
    return b"data: " + body.encode() + end * 2


CONTENT = event(DELTA)
NULL = event(DELTA, usage=None)
USAGE = event([], usage=REPORT)
BOTH = event(DELTA, usage=REPORT)
COMMENT = b": keep-alive\n\n"
NAMED = b"event: message\nid: 4\n" + CONTENT


def relayed(pieces: list[bytes], *, asked: bool) -> tuple[bytes, bytes, ChunkRelay]:
    """What passed while the stream came, what is owed at its end, and the relay."""
    relay = ChunkRelay(asked, CEILING)
    passed = b"".join(relay.feed(piece) for piece in pieces)
    relay.end()
    return passed, relay.rest(), relay


# -- what a caller gets


@pytest.mark.parametrize(
    ("stream", "shown", "hidden"),
    [
        (CONTENT + USAGE + DONE, CONTENT + USAGE + DONE, CONTENT + DONE),
        (CONTENT + USAGE, CONTENT + USAGE, CONTENT),
        (CONTENT + DONE, CONTENT + DONE, CONTENT + DONE),
        (NULL + USAGE + DONE, NULL + USAGE + DONE, CONTENT + DONE),
        (COMMENT + NAMED + USAGE + DONE, COMMENT + NAMED + USAGE + DONE, COMMENT + NAMED + DONE),
        (b"", b"", b""),
    ],
)
def test_usage_reaches_only_who_asked_for_it(stream: bytes, shown: bytes, hidden: bytes) -> None:
    """A chunk of nothing but usage is left out, a null usage is taken out of its chunk; all else is byte for byte."""
    for asked, expected in ((True, shown), (False, hidden)):
        passed, rest, relay = relayed([stream], asked=asked)
        assert passed + rest == expected
        assert relay.usage == (SERVED if USAGE in stream else None)


def test_usage_beside_content_is_taken_out_of_the_chunk() -> None:
    """The content stays; who asked gets the bytes as they came."""
    passed, rest, relay = relayed([BOTH + DONE], asked=False)
    assert json.loads(passed[6:]) == json.loads(CONTENT[6:])
    assert (rest, relay.usage, relay.pieces) == (DONE, SERVED, 1)
    assert relayed([BOTH + DONE], asked=True)[0] == BOTH


@pytest.mark.parametrize("asked", [True, False])
def test_the_end_is_withheld_until_the_books_are_written(asked: bool) -> None:
    """Neither ``[DONE]`` nor what comes behind it nor the usage before it passes while the stream comes."""
    passed, rest, relay = relayed([CONTENT, USAGE, DONE, COMMENT], asked=asked)
    assert passed == CONTENT
    assert rest == (USAGE if asked else b"") + DONE + COMMENT
    assert relay.done


def test_content_that_speaks_of_usage_is_content() -> None:
    """Words of a model are not a report, and not the end."""
    said = event([{"delta": {"content": '"usage": {"prompt_tokens": 1}, [DONE] data: , "usage": null'}}])
    passed, rest, relay = relayed([said + DONE], asked=False)
    assert (passed, rest, relay.usage, relay.pieces) == (said, DONE, None, 1)


@pytest.mark.parametrize("asked", [True, False])
def test_lines_may_end_with_carriage_returns(asked: bool) -> None:
    """Between and within events, the end included."""
    content, usage, done = event(DELTA, b"\r\n"), event([], b"\r\n", usage=REPORT), b"data: [DONE]\r\n\r\n"
    passed, rest, relay = relayed([content + usage + done], asked=asked)
    assert (passed, rest, relay.usage, relay.done) == (content, (usage if asked else b"") + done, SERVED, True)


@pytest.mark.parametrize(
    "report", [{"prompt_tokens": -1}, {"prompt_tokens": CEILING + 1}, {"completion_tokens": 3}, "none", 7]
)
def test_a_report_that_cannot_be_true_is_none(report: Any) -> None:
    """The stream goes on; what was seen is counted instead."""
    passed, rest, relay = relayed([CONTENT + event([], usage=report) + DONE], asked=True)
    assert relay.usage is None
    assert passed.startswith(CONTENT)
    assert rest.endswith(DONE)


def test_pieces_are_events_that_carried_something() -> None:
    """What is charged where nobody reported usage: comments and the end are nothing, in whatever company they come."""
    for stream in (COMMENT + CONTENT + COMMENT + CONTENT + DONE, COMMENT + NULL + COMMENT + NULL + DONE):
        assert relayed([stream], asked=False)[2].pieces == 2


def test_the_words_of_an_answer_are_no_events() -> None:
    """A text that speaks of ``data:`` is one piece, alone or beside others."""
    text = b'data: {"choices":[{"delta":{"content":"data: data:"}}]}\n\n'
    assert relayed([text + text], asked=False)[2].pieces == 2
    assert relayed([text + text + DONE], asked=False)[2].pieces == 2


def test_what_a_backend_says_is_never_an_error_of_ours() -> None:
    """Text that is no UTF-8 and nesting without end are relayed as they came; a report beside such text still counts."""
    deep = b'data: {"choices":' + b"[" * 200_000 + b"]" * 200_000 + b',"usage":{"prompt_tokens":1}}\n\n'
    assert relayed([deep + DONE], asked=False)[0] == deep
    said = b'{"choices":[{"delta":{"content":"\xff"}}]%b}'
    report = b',"usage":{"prompt_tokens":7,"completion_tokens":50}'
    passed, _, relay = relayed([b"data: " + said % report + b"\n\n"], asked=False)
    assert (passed, relay.usage) == (b"data: " + said % b"" + b"\n\n", SERVED)
    named = b'data: {"\xff":1,"choices":[{}]%b}\n\n' % report
    passed, _, relay = relayed([named], asked=False)
    assert (passed, relay.usage) == (named, SERVED)


# -- however it is cut

events = st.sampled_from([CONTENT, NULL, BOTH, NAMED, USAGE, COMMENT, event(DELTA, b"\r\n"), event([], usage=None)])
streams = st.builds(
    lambda body, end: b"".join(body) + end,
    st.lists(events, max_size=6),
    st.sampled_from([DONE, b"", DONE[:-2], CONTENT[:9]]),
)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    whole = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    edges = [0, *cuts, len(whole)]
    return whole, [whole[start:end] for start, end in pairwise(edges)]


@settings(max_examples=50)
@given(cut_streams(), st.booleans())
def test_any_cut_gives_the_same_bytes_and_the_same_usage(cut: tuple[bytes, list[bytes]], asked: bool) -> None:
    """At any byte, in any number of pieces, empty ones too."""
    stream, pieces = cut
    passed, rest, relay = relayed(pieces, asked=asked)
    whole_passed, whole_rest, whole = relayed([stream], asked=asked)
    assert passed + rest == whole_passed + whole_rest
    assert (relay.usage, relay.pieces, relay.done) == (whole.usage, whole.pieces, whole.done)
    if asked:
        assert passed + rest == stream
    assert b"[DONE]" not in passed


@given(st.lists(events, max_size=6))
def test_byte_by_byte_is_like_event_by_event(body: list[bytes]) -> None:
    """The smallest pieces there are."""
    single = [bytes([byte]) for byte in b"".join(body) + DONE]
    passed, rest, relay = relayed(single, asked=False)
    expected_passed, expected_rest, expected = relayed([*body, DONE], asked=False)
    assert (passed, rest, relay.usage) == (expected_passed, expected_rest, expected.usage)


# -- line ends


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_each_event_passes_when_it_is_whole_whatever_ends_its_lines(end: bytes, asked: bool) -> None:
    """LF, CRLF and a lone CR, as the specification allows, wherever the stream is cut; the same usage, the same count."""
    first, second = event(DELTA, end), b"event: message" + end + event(DELTA, end, usage=None)
    usage, done = event([], end, usage=REPORT), b"data: [DONE]" + end * 2
    stream = first + second + usage + done
    shown = stream if asked else stream.replace(b', "usage": null', b"").replace(usage, b"")
    for cut in range(len(stream) + 1):
        passed, rest, relay = relayed([stream[:cut], stream[cut:]], asked=asked)
        assert _lines(passed + rest) == _lines(shown), cut
        assert (relay.usage, relay.pieces, relay.done) == (SERVED, 2, True)
    relay = ChunkRelay(asked, CEILING)
    assert relay.feed(first + second) == shown[: shown.index(b"data: [DONE]")].replace(usage, b"")
    assert relay.feed(usage) + relay.feed(done) == b""


@pytest.mark.parametrize(("first", "second"), [(b"\n", b"\r"), (b"\r", b"\r\n"), (b"\r\n", b"\r"), (b"\r", b"\n")])
def test_line_ends_of_both_kinds_in_one_stream(first: bytes, second: bytes) -> None:
    """CR LF is one line end, and nothing else is."""
    lines = CONTENT.strip() + first
    relay = ChunkRelay(False, CEILING)
    if first + second == b"\r\n":
        assert relay.feed(lines + second) == b""
        assert relay.feed(b"\n") == lines + second + b"\n"
    else:
        assert relay.feed(lines + second) == lines + second
        assert relay.feed(CONTENT) == CONTENT


def _lines(stream: bytes) -> list[bytes]:
    """What a reader of events makes of a stream: its lines, a blank one after each event."""
    return stream.splitlines()


@pytest.mark.parametrize("make", [lambda: ChunkRelay(False, CEILING), Events], ids=["chunks", "events"])
def test_an_event_that_comes_in_many_pieces_is_looked_through_once(
    make: Callable[[], ChunkRelay | Events], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures come as one event of megabytes, a packet at a time: who looks through all of it with each one keeps all others
    waiting."""
    looked = 0

    def counting(data: bytes) -> int:
        nonlocal looked
        looked += len(data)
        return last_boundary(data)

    for module in (sse, chat_stream):
        monkeypatch.setattr(module, "last_boundary", counting)
    long = b"data: " + b"x" * 500_000 + b"\n\n"
    relay = make()
    passed = [relay.feed(long[at : at + 1000]) for at in range(0, len(long), 1000)]
    assert b"".join(passed) == long
    assert looked < 3 * len(long)
