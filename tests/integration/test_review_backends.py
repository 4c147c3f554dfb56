"""Backends that answer in ways of their own: what the caller gets, and what is on the books."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.lab import Key, Lab, Row
from tests.waiting import eventually

USAGE = {"prompt_tokens": 10, "completion_tokens": 160_000, "total_tokens": 160_010}
COST = 96_002_621
"""Of `USAGE` at the lab's price, in nano-dollars, rounded up."""


async def test_many_choices_may_use_more_than_the_context_of_one(lab: Lab) -> None:
    """Usage is the sum over all choices: more output than fits into one context is no lie, and is charged exactly."""
    answer = _plain(200, {"choices": [], "usage": USAGE})
    async with _answering(answer) as url:
        key = await _house(lab, url)
        got = await lab.chat(key, "m", n=16, max_tokens=20_000)
        assert (got.status, got.headers["x-tollhouse-cost-usd"]) == (200, "0.096002621")
        assert await _row(lab, got.id) == Row(got.id, "completed", "", "m", COST, False)


@pytest.mark.parametrize("asked", [True, False])
async def test_an_answer_that_announced_its_end_is_whole(lab: Lab, asked: bool) -> None:
    """The connection breaks behind ``[DONE]``: usage is known, so nothing is unconfirmed and nobody is told of an error."""
    events = [
        {"choices": [{"index": 0, "delta": {"content": "hi"}}]},
        {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 100}},
    ]
    data = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
    torn = b"HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (len(data) + 9, data)
    async with _answering(torn, close=True) as url:
        key = await _house(lab, url)
        stream = await lab.stream(key, "m", stream_options={"include_usage": asked})
        got = b""
        while piece := await stream.piece():
            got += piece
        assert got.endswith(b"data: [DONE]\n\n")
        assert (b'"usage"' in got) is asked
        row = await _row(lab, stream.headers["x-request-id"])
        assert (row.outcome, row.estimated) == ("completed", False)


async def test_a_refusal_passes_whatever_it_is_written_as(lab: Lab) -> None:
    """A 400 whose type is that of an event stream reaches the caller with its body."""
    body = b'data: {"error": {"message": "bad"}}\n\n'
    async with _answering(_head(400, "text/event-stream", len(body)) + body) as url:
        key = await _house(lab, url)
        got = await lab.chat(key, "m")
        assert (got.status, got.body) == (400, body)


async def test_a_backend_that_cannot_have_the_request_holds_nothing(lab: Lab) -> None:
    """A name that no resolver takes: 502, and the request failed at once instead of being open until its deadline."""
    key = await _house(lab, f"http://{'a' * 70}.example/v1")
    got = await lab.chat(key, "m")
    assert (got.status, got.code) == (502, "upstream_error")
    assert (await _row(lab, got.id)).outcome == "failed"


async def test_only_the_head_of_a_read_is_asked_for(lab: Lab) -> None:
    """HEAD on the read side is answered: its length is stated, and its body is not waited for."""
    got = await lab.http.open("HEAD", "/read/v1/nothing")
    assert int(got.headers["content-length"]) > 0
    got.leave()
    host, port = lab.listen.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(2):  # the same connection goes on
        writer.write(b"HEAD /read/v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
    writer.close()


async def test_strangers_are_refused_before_their_body_is_read(lab: Lab) -> None:
    """Without a key the answer comes while the body is still awaited."""
    host, port = lab.listen.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
    async with asyncio.timeout(20):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
    writer.close()


async def test_a_stopped_folder_is_reconciled_in_one_go_after_a_crash(lab: Lab) -> None:
    """What a killed process left open is completed by the first `reconcile`, not only by the second."""
    fake = await lab.fake()
    fake.gates["m"] = asyncio.Event()
    key = await _house(lab, fake.url)
    asking = asyncio.create_task(lab.chat(key, "m", max_tokens=50))
    row = await eventually(lambda: lab.rows("acme"), lambda rows: [row.outcome for row in rows] == ["open"])
    await lab.product.kill()
    await asyncio.gather(asking, return_exceptions=True)
    record = lab.folder / "record.ndjson"
    record.write_text(json.dumps({"request_id": row[0].id, "prompt_tokens": 3, "completion_tokens": 50}))
    code, out, err = await lab.run("reconcile", "--file", str(record), "-o", "json")
    assert (code, json.loads(out)["data"]) == (0, [{"completed": 1, "not_served": 0, "left": 0}]), err


async def _house(lab: Lab, url: str) -> Key:
    await lab.model("m", url)
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "1000")
    return key


async def _row(lab: Lab, id: str) -> Row:
    def there(rows: list[Row]) -> bool:
        return any(row.id == id and row.outcome != "open" for row in rows)

    return next(row for row in await eventually(lambda: lab.rows("acme"), there) if row.id == id)


@asynccontextmanager
async def _answering(answer: bytes, *, close: bool = False) -> AsyncIterator[str]:
    """A backend that sends the same bytes to every request, and then perhaps goes away."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length:")[2].split("\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(answer)
                await writer.drain()
                if close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(session, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


def _plain(status: int, doc: Any) -> bytes:
    body = json.dumps(doc).encode()
    return _head(status, "application/json", len(body)) + body


def _head(status: int, kind: str, length: int) -> bytes:
    return f"HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n".encode()
