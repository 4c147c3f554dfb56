"""A caller who says any bytes, and reads what is answered as strictly as HTTP can be read.

Bytes that are no answers are an `AssertionError`: whatever is sent, what comes back is HTTP.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.waiting import PATIENCE

STATUSES = frozenset(
    {200, 201, 400, 401, 402, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 502, 503, 504}
)  # and no 500: an error of ours is one

_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9a-z-]+): ([\t -~\x80-\xff]*)\r\n")


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer. `whole`: it came to its end."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    whole: bool

    def header(self, name: str) -> str | None:
        """Its only value, if it has one."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, self.headers
        return found[0] if found else None

    @property
    def last(self) -> bool:
        """Whether it says that the connection ends with it."""
        return self.header("connection") == "close"

    @property
    def code(self) -> str | None:
        """The stable code of an error, in whatever shape."""
        if self.status < 400 or not self.body:
            return None
        doc = json.loads(self.body)
        found: str | None = doc["error"]["code"] if "error" in doc else doc["code"]
        return found


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was answered, and whether the server had ended the connection by then."""

    answers: Sequence[Heard]
    ended: bool


async def converse(
    listen: str, pieces: Sequence[bytes], methods: Sequence[str], *, leave: bool = False
) -> Conversation:
    """Says `pieces`, each by itself, and reads one answer for each of `methods`, or until the connection ends; where the last
    answer says that it is the last, until then. `leave`: closes its side first, and reads whatever still comes."""
    host, _, port = listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    heard = b""
    try:
        async with asyncio.timeout(PATIENCE):
            ended = not await _say(writer, pieces, leave)
            while True:
                answers = parsed(heard, methods)
                if not leave and len(answers) == len(methods) and answers[-1].whole and not answers[-1].last:
                    return Conversation(answers, ended)
                try:
                    piece = await reader.read(1 << 20)
                except ConnectionError:
                    piece = b""
                if not piece:
                    return Conversation(answers, True)
                heard += piece
    finally:
        writer.close()


def parsed(data: bytes, methods: Sequence[str]) -> list[Heard]:
    """The answers in `data`; the last may lack its end. More of them than `methods`, or anything that is none, fails."""
    answers: list[Heard] = []
    at = 0
    while at < len(data):
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            assert data[at : at + 9] == b"HTTP/1.1 "[: len(data) - at], data[at:]
            break
        line = _LINE.match(data, at)
        assert line, data[at : at + 200]
        status, fields = int(line[1]), _fields(data[line.end() : end + 2])
        at = end + 4
        if status < 200:
            continue
        # a refusal that is owed to nothing in particular may follow the answers
        method = methods[len(answers)] if len(answers) < len(methods) else "?"
        body, at, whole = _body(data, at, status, fields, method)
        answers.append(Heard(status, fields, body, whole))
    assert len(answers) <= len(methods) + 1, f"{len(answers)} answers to {len(methods)} requests"
    return answers


def check(answer: Heard) -> None:
    """What holds of every answer, whatever was asked."""
    assert answer.status in STATUSES, answer
    request_id = answer.header("x-request-id")
    assert request_id is not None and request_id.startswith("req_"), answer
    theirs = answer.header("x-tollhouse-backend") is not None  # a refusal of the backend's own, in its own words
    if answer.whole and answer.status >= 400 and answer.body and not theirs:
        assert answer.code and answer.code != "internal_error", answer
        assert "json" in (answer.header("content-type") or ""), answer


async def _say(writer: asyncio.StreamWriter, pieces: Sequence[bytes], leave: bool) -> bool:
    """False if the server did not listen to the end."""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0)
        if leave:
            writer.write_eof()
    except (ConnectionError, OSError):
        return False
    return True


def _fields(lines: bytes) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(lines):
        field = _FIELD.match(lines, at)
        assert field, lines[at : at + 200]
        found.append((field[1].decode(), field[2].decode("latin-1")))
        at = field.end()
    return found


def _body(data: bytes, at: int, status: int, fields: Sequence[tuple[str, str]], method: str) -> tuple[bytes, int, bool]:
    """The body at `at`, where it ends, and whether it does."""
    named: dict[str, Any] = dict(fields)
    assert len(named) == len(fields), fields
    if method == "HEAD" or status in (204, 304):
        return b"", at, True
    if "content-length" in named:
        assert "transfer-encoding" not in named, fields
        end = at + int(named["content-length"])
        return data[at:end], min(end, len(data)), end <= len(data)
    assert named["transfer-encoding"] == "chunked", fields
    parts: list[bytes] = []
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            return b"".join(parts), len(data), False
        size = int(data[at:line], 16)
        end = line + 2 + size
        if end + 2 > len(data):
            return b"".join(parts), len(data), False
        assert data[end : end + 2] == b"\r\n", data[end : end + 20]
        if not size:
            return b"".join(parts), end + 2, True
        parts.append(data[line + 2 : end])
        at = end + 2
