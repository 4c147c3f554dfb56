"""OpenAI's streams: what the caller sees is what the backend sent, less what it did not ask for; the books have the usage."""

import json
from functools import partial

import pytest

from api.router.faces.chat_stream import ChunkRelay
from api.router.faces.face import Relay
from api.router.faces.responses_stream import ResponsesRelay
from api.router.faces.sse import MAX_EVENT
from domain.errors import UpstreamFailed
from domain.facts import Usage
from tests.golden.corpus import expected, names, same_however_cut, stream

CEILING = 200_000
FOLDERS = ("chat", "completions", "responses")
ALL = [(folder, name) for folder in FOLDERS for name in names(folder)]


def relay(folder: str, asked: bool = True) -> Relay:
    return ResponsesRelay(CEILING) if folder == "responses" else ChunkRelay(asked, CEILING)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_stream_says_what_is_in_it(folder: str) -> None:
    """None is left out, none is left over."""
    assert sorted(expected(folder)) == names(folder)


@pytest.mark.parametrize(("folder", "name"), ALL)
def test_what_is_seen_is_what_was_sent_wherever_it_is_cut(folder: str, name: str) -> None:
    """At every byte, to a caller who asked for usage: the same bytes, the same usage, and nothing withheld before the end."""
    sent, wanted = stream(folder, name), expected(folder)[name]
    found, passed, withheld = same_however_cut(partial(relay, folder), sent)
    assert passed + withheld == sent
    assert found.usage == (None if wanted["usage"] is None else Usage(**wanted["usage"]))
    assert (found.pieces, found.done) == (wanted["pieces"], wanted["done"])
    assert found.failed is wanted.get("failed", False)


@pytest.mark.parametrize(("folder", "name"), [(folder, name) for folder, name in ALL if folder != "responses"])
def test_who_did_not_ask_sees_no_usage(folder: str, name: str) -> None:
    """Every chunk comes, without its usage and without the one that is nothing else; text about usage is text."""
    sent, wanted = stream(folder, name), expected(folder)[name]
    found, passed, withheld = same_however_cut(partial(relay, folder, asked=False), sent)
    assert found.usage == (None if wanted["usage"] is None else Usage(**wanted["usage"]))
    assert chunks(passed + withheld) == [
        {field: value for field, value in chunk.items() if field != "usage"}
        for chunk in chunks(sent)
        if chunk.get("choices") or not chunk.get("usage")
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_event_without_end_breaks_the_stream(folder: str) -> None:
    """What is never whole is not gathered for ever."""
    one, piece = relay(folder), b"data: " + b"x" * (MAX_EVENT // 4)
    assert [one.feed(piece) for _ in range(3)] == [b""] * 3
    with pytest.raises(UpstreamFailed) as failure:
        one.feed(piece)
    assert failure.value.sent


def chunks(data: bytes) -> list[dict[str, object]]:
    """What each event of a stream says."""
    lines = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ") and line != "data: [DONE]"]
    return [json.loads(line) for line in lines]
