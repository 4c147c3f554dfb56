"""Requests as bytes: well formed ones whose answers are known, in every framing and cut, and the same with something wrong."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st

from tests.attack.endpoints import CHAT

KINDS = ("chat", "chat", "chat", "stream", "model", "unknown", "invalid", "stranger")
"""Of requests whose answers say by themselves where they end."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request, and the status of its answer; `mark` is in the answer's body and in no other's."""

    data: bytes
    method: str
    status: int
    mark: bytes


def post(secret: str, body: bytes, path: str = CHAT.path, headers: bytes = b"") -> bytes:
    """A request with its length stated."""
    return head(secret, "POST", path) + headers + b"content-length: %d\r\n\r\n" % len(body) + body


def head(secret: str, method: str, path: str) -> bytes:
    """Request line and the headers that every request has; not ended."""
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n".encode()


def chunked(body: bytes, cuts: Sequence[int], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    """A body in chunks that end at `cuts`."""
    edges = sorted({cut for cut in cuts if 0 < cut < len(body)} | {0, len(body)})
    pieces = [body[start:end] for start, end in pairwise(edges)]
    return (
        b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n" + trailer + b"\r\n"
    )


@st.composite
def conversations(draw: st.DrawFn, secret: str, kinds: Sequence[str] = ("head", *KINDS)) -> list[Message]:
    """Some requests that one connection can carry."""
    return [draw(_messages(secret, number, kinds)) for number in range(draw(st.integers(1, 4)))]


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` in a few packets."""
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=4))
    edges = sorted({0, len(data), *cuts})
    return [data[start:end] for start, end in pairwise(edges)]


@st.composite
def _messages(draw: st.DrawFn, secret: str, number: int, kinds: Sequence[str]) -> Message:
    tokens = 100 + number  # tells the answers apart
    kind = draw(st.sampled_from(kinds))
    extra = draw(
        st.sampled_from(
            [b"", b"", b"", b"x-a: \xff\x80 b\r\n", b"x-empty:\r\n", b"connection: keep-alive\r\n", _UPGRADE]
        )
    )
    match kind:
        case "model":
            return Message(
                head(secret, "GET", f"/v1/models/none-{tokens}") + extra + b"\r\n", "GET", 404, b"none-%d" % tokens
            )
        case "head":
            return Message(head(secret, "HEAD", f"/v1/none-{tokens}") + extra + b"\r\n", "HEAD", 404, b"")
        case "unknown":
            return Message(
                _framed(draw, head(secret, "POST", f"/v1/x-{tokens}") + extra, b"{}"), "POST", 404, b"x-%d" % tokens
            )
        case "stranger":
            return Message(
                _framed(draw, head("th_sk_x", "POST", CHAT.path) + extra, b"{}"), "POST", 401, b"invalid_api_key"
            )
        case "invalid":
            body = b'{"model": "m", "n": %d}' % (tokens * 10)
            return Message(_framed(draw, head(secret, "POST", CHAT.path) + extra, body), "POST", 400, b"")
        case _:
            stream = kind == "stream"
            doc = {
                "model": "m",
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": tokens,
                "stream": stream,
            }
            if stream:
                doc["stream_options"] = {"include_usage": True}
            data = _framed(draw, head(secret, "POST", CHAT.path) + extra, json.dumps(doc).encode())
            return Message(data, "POST", 200, b'"completion_tokens":%d' % tokens)


def _framed(draw: st.DrawFn, start: bytes, body: bytes) -> bytes:
    way = draw(st.sampled_from(["length", "length", "chunks", "expect"]))
    if way == "length":
        return start + b"content-length: %d\r\n\r\n" % len(body) + body
    if way == "expect":
        return start + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    cuts = draw(st.lists(st.integers(0, len(body)), max_size=4))
    extension = draw(st.sampled_from([b"", b";a=b", b';a="b c"']))
    trailer = draw(st.sampled_from([b"", b"x-a: b\r\n", b"authorization: Bearer x\r\n"]))
    return start + b"transfer-encoding: chunked\r\n\r\n" + chunked(body, cuts, extension, trailer)


_UPGRADE = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
