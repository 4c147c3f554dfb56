"""Anthropic's streams: what the caller sees is what the backend sent, and the books have the usage, however they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.router.faces.messages_stream import MessagesRelay
from domain.facts import Usage
from tests.golden.corpus import expected, names, same_however_cut, stream, told

CEILING = 200_000
EXPECTED = expected("messages")
NAMES = names("messages")


def relay() -> MessagesRelay:
    return MessagesRelay(CEILING)


def test_every_stream_says_what_is_in_it() -> None:
    """None is left out, none is left over."""
    assert sorted(EXPECTED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_seen_is_what_was_sent_wherever_it_is_cut(name: str) -> None:
    """At every byte: the same bytes, the same usage, the end and nothing before it withheld."""
    sent, wanted = stream("messages", name), EXPECTED[name]
    found, passed, withheld = same_however_cut(relay, sent)
    assert passed + withheld == sent
    assert found.usage == (None if wanted["usage"] is None else Usage(**wanted["usage"]))
    assert (found.pieces, found.done) == (wanted["pieces"], wanted["done"])
    assert found.failed is wanted.get("failed", False)
    assert withheld.startswith(b"event: message_stop") is found.done


@given(st.sampled_from(NAMES), st.data())
def test_any_number_of_cuts_changes_nothing(name: str, data: st.DataObject) -> None:
    """Pieces as a network makes them."""
    sent = stream("messages", name)
    at = sorted(data.draw(st.sets(st.integers(1, len(sent) - 1), max_size=40)))
    pieces = [sent[a:b] for a, b in zip([0, *at], [*at, len(sent)], strict=True)]
    whole, cut = relay(), relay()
    assert told(whole, sent) == told(cut, *pieces)
    assert (whole.usage, whole.pieces) == (cut.usage, cut.pieces)


def test_an_event_passes_as_soon_as_it_is_whole() -> None:
    """Nothing is buffered beyond the event that is still coming."""
    sent = stream("messages", "tool_use")
    one, seen, sent_so_far = relay(), b"", b""
    for event in sent.split(b"\n\n")[:-2]:  # all but the last, which is withheld
        sent_so_far += event + b"\n\n"
        seen += one.feed(event + b"\n\n")
        assert seen == sent_so_far


def test_a_line_feed_that_was_cut_off_passes_at_once() -> None:
    """It ends an event that has passed: whoever reads lines that end with both waits for it."""
    one, event = relay(), b"event: ping\r\ndata: {}\r\n\r\n"
    assert [one.feed(event[:-1]), one.feed(event[-1:]), one.feed(b"\n: x")] == [event[:-1], b"\n", b""]
