"""One request of a connection: what the application is told of it, and what is written of its answer."""

import asyncio
from typing import Any

import pytest

from cli.http_cycle import HIGH_WATER, Cycle

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]}


class Line:
    """A connection that remembers."""

    def __init__(self) -> None:
        self.transport: Any = self
        self.room = asyncio.Event()
        self.room.set()
        self.written = b""
        self.did: list[str] = []

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return "end" in self.did

    def listen(self) -> None:
        self.did.append("listen")

    def wait(self) -> None:
        self.did.append("wait")

    def answered(self) -> None:
        self.did.append("answered")

    def end(self) -> None:
        self.did.append("end")


def cycle(line: Line, method: str = "POST", *, keep_alive: bool = True, expects: bool = False) -> Cycle:
    return Cycle(line, {"method": method, "http_version": "1.1"}, keep_alive, expects)


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_a_body_comes_as_it_comes_and_its_end_is_told_once() -> None:
    line = Line()
    request = cycle(line)
    first = asyncio.ensure_future(request.receive())
    await asyncio.sleep(0)
    request.feed(b"on")
    request.feed(b"e")
    assert await first == {"type": "http.request", "body": b"one", "more_body": True}
    request.whole()
    assert await request.receive() == {"type": "http.request", "body": b"", "more_body": False}
    after = asyncio.ensure_future(request.receive())
    await asyncio.sleep(0)
    assert not after.done()
    request.leave()
    assert await after == {"type": "http.disconnect"}


async def test_nothing_more_is_read_while_much_of_a_body_waits() -> None:
    line = Line()
    request = cycle(line)
    request.feed(b"a" * HIGH_WATER)
    assert line.did == []
    request.feed(b"a")
    assert line.did == ["wait"]
    assert len((await request.receive())["body"]) == HIGH_WATER + 1
    more = asyncio.ensure_future(request.receive())
    await asyncio.sleep(0)
    assert line.did == ["wait", "listen"]
    more.cancel()


async def test_who_asks_first_is_told_to_go_on_once_and_only_if_the_body_is_wanted() -> None:
    line = Line()
    request = cycle(line, expects=True)
    request.feed(b"a")
    await request.receive()
    request.whole()
    await request.receive()
    assert line.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    refused = Line()
    request = cycle(refused, expects=True)
    await request.send(START)
    await request.send(body(b"no!"))
    assert b" 100 " not in refused.written
    assert b"\r\nconnection: close\r\n" in refused.written, "the body was not taken"


async def test_every_task_that_waits_is_told() -> None:
    """An application may wait for its caller's leave in one and for the body in another."""
    line = Line()
    request = cycle(line)
    waiting = [asyncio.ensure_future(request.receive()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    request.leave()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() and task.result()["type"] for task in waiting] == ["http.disconnect"] * 2


async def test_who_has_gone_is_not_told_to_go_on() -> None:
    line = Line()
    request = cycle(line, expects=True)
    request.leave()
    assert await request.receive() == {"type": "http.disconnect"}
    assert line.written == b""


@pytest.mark.parametrize("value", [b"a\r\nx-more: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_header_is_one_header(value: bytes) -> None:
    """Whatever a value is made of: the caller gets an error, and nothing of it."""
    line = Line()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-from-elsewhere", value)]})

    await cycle(line).run(app)
    assert line.written.startswith(b"HTTP/1.1 500 ")
    assert b"x-from-elsewhere" not in line.written
    assert line.did == ["end"]


@pytest.mark.parametrize("pieces", [[b"ab"], [b"abcd"], [b"ab", b""], [b"ab", b"cd"]])
async def test_an_answer_of_another_length_than_it_said_breaks(pieces: list[bytes]) -> None:
    """What would be read as a part of the next answer is not written, and what is not whole does not look so: as long as nothing
    is written the caller is told."""
    line = Line()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for at, data in enumerate(pieces):
            await send(body(data, more=at < len(pieces) - 1))

    request = cycle(line)
    request.whole()
    await request.run(app)
    assert (request.complete, line.did) == (len(pieces) == 1, ["end"])
    if len(pieces) == 1:
        assert line.written.startswith(b"HTTP/1.1 500 ")
    else:
        assert line.written == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab"


async def test_what_could_not_begin_leaves_nothing_behind() -> None:
    """An application may answer something else then: that is framed in one way."""
    line = Line()
    request = cycle(line)
    request.whole()
    with pytest.raises(RuntimeError):
        await request.send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\nb")]})
    await request.send(START)
    await request.send(body(b"abc"))
    assert line.written == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"


async def test_an_answer_begins_once() -> None:
    """Else the second beginning would be taken for the end of the first: what is torn would look whole."""
    line = Line()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            await send({"type": "http.response.start", "status": 200, "headers": []})

    request = cycle(line)
    request.whole()
    await request.run(app)
    assert (request.complete, line.did) == (False, ["end"])
    assert not line.written.endswith(b"0\r\n\r\n")


async def test_an_answer_may_have_no_headers() -> None:
    line = Line()
    request = cycle(line)
    request.whole()
    await request.send({"type": "http.response.start", "status": 204})
    await request.send({"type": "http.response.body"})
    assert line.written == b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(("method", "has_body"), [("HEAD", False), ("GET", True)])
async def test_what_is_said_for_an_application_is_all_that_is_said(method: str, has_body: bool) -> None:
    """To HEAD without a body, and nothing comes behind it; it is whole, also for a client that knows no chunks."""
    line = Line()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a bug")

    request = Cycle(line, {"method": method, "http_version": "1.0"}, False, False)
    request.whole()
    await request.run(app)
    head, _, said = line.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert (bool(said), request.torn, line.did) == (has_body, False, ["end"])
    with pytest.raises(RuntimeError):
        await request.send(START)


async def test_an_old_client_is_told_that_an_answer_could_not_begin() -> None:
    """His connection ends, and does not break: what it brings is whole."""
    line = Line()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\nb")]})

    request = Cycle(line, {"method": "GET", "http_version": "1.0"}, False, False)
    request.whole()
    await request.run(app)
    assert line.written.startswith(b"HTTP/1.1 500 ")
    assert not request.torn


async def test_an_answer_to_head_has_no_body() -> None:
    line = Line()
    request = cycle(line, "HEAD")
    request.whole()
    await request.send(START)
    await request.send(body(b"abc"))
    assert line.written == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"
    assert (request.complete, line.did) == (True, ["answered"])


async def test_a_stream_is_chunked_to_its_end() -> None:
    line = Line()
    request = cycle(line, keep_alive=False)
    request.whole()
    await request.send({"type": "http.response.start", "status": 200, "headers": []})
    for data in (b"one", b""):
        await request.send(body(data, more=True))
    await request.send(body(b"0123456789abcdef"))
    head, _, rest = line.written.partition(b"\r\n\r\n")
    assert head == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close"
    assert rest == b"3\r\none\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
    assert line.did == ["end", "answered"]


async def test_what_is_to_be_sent_waits_for_room() -> None:
    line = Line()
    request = cycle(line)
    request.whole()
    await request.send(START)
    line.room.clear()
    sending = asyncio.ensure_future(request.send(body(b"abc")))
    await asyncio.sleep(0)
    held = len(line.written)
    line.room.set()
    await sending
    assert held == 0
    assert line.written == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "in one piece"
