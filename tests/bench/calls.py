"""What is asked of every proxy: one chat completion, plain and streamed, in each one's own words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

GATEWAY, REST = 0, 1
"""Cores: the proxy under measurement has one to itself."""

MODEL, STREAM_MODEL = "bench", "hello"
"""Published models: the first is answered by nginx at once, the other by the Hello service event by event."""

STREAMED_TOKENS = 1000
TOKENS_PER_EVENT = 20
EVENTS = STREAMED_TOKENS // TOKENS_PER_EVENT + 2
"""Events of one streamed answer: its pieces, the end of the text, and the end of the stream."""

_MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant. Answer in one short sentence."},
    {"role": "user", "content": "What is a gateway that keeps its own books, and why would anybody want one? " * 2},
]


@dataclass(frozen=True, slots=True)
class Call:
    """A POST of `body`."""

    url: str
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


def plain(url: str, headers: Mapping[str, str], model: str = MODEL) -> Call:
    return Call(url, json.dumps({"model": model, "max_tokens": 64, "messages": _MESSAGES}), headers)


def streamed(url: str, headers: Mapping[str, str], model: str = STREAM_MODEL, tokens: int = STREAMED_TOKENS) -> Call:
    asked = {"model": model, "stream": True, "max_tokens": tokens, "messages": _MESSAGES}
    return Call(url, json.dumps(asked), headers)


def bearer(key: str) -> Mapping[str, str]:
    return {"authorization": f"Bearer {key}"}
