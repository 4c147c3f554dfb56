"""A corpus of streams as providers send them, written from their public specifications, and every way to cut them.

A folder of `streams/` has one file per stream; ``<folder>.json`` beside it says what must be found in each.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from api.router.faces.face import Relay
from domain.facts import Usage

STREAMS = Path(__file__).parent / "streams"


def names(folder: str) -> list[str]:
    """The streams of a folder."""
    return sorted(file.stem for file in (STREAMS / folder).iterdir())


def stream(folder: str, name: str) -> bytes:
    return (STREAMS / folder / f"{name}.sse").read_bytes()


def expected(file: str) -> dict[str, Any]:
    """What must be found, by stream."""
    found: dict[str, Any] = json.loads((STREAMS / f"{file}.json").read_text())
    return found


def told(relay: Relay, *pieces: bytes) -> tuple[bytes, bytes]:
    """What passes of a stream that comes in these pieces, and what is withheld until the books are written."""
    passed = b"".join([relay.feed(piece) for piece in pieces])
    relay.end()
    return passed, relay.rest()


def told_of(relay: Relay) -> tuple[Usage | None, int, bool, bool]:
    """What it found: the usage, how many pieces, whether there was an end and whether an error."""
    return relay.usage, relay.pieces, relay.done, relay.failed


def cuts(data: bytes) -> Iterator[tuple[bytes, ...]]:
    """In one piece, in two at every byte, and byte by byte."""
    yield (data,)
    for at in range(1, len(data)):
        yield data[:at], data[at:]
    yield tuple(data[at : at + 1] for at in range(len(data)))


def same_however_cut(make: Callable[[], Relay], data: bytes) -> tuple[Relay, bytes, bytes]:
    """The relay, what passed and what was withheld: the same in all `cuts`, or it is an error."""
    first = make()
    passed, withheld = told(first, data)
    for pieces in cuts(data):
        relay = make()
        again = told(relay, *pieces)
        assert again == (passed, withheld), [len(piece) for piece in pieces[:2]]
        assert told_of(relay) == told_of(first)
    return first, passed, withheld
