"""One connection, by what it tells its transport and the application."""

import asyncio
from typing import Any

import pytest
from uvicorn.server import ServerState

from cli.http_protocol import HEAD_BYTES, HttpConfig, HttpProtocol

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Transport:
    """A socket that remembers."""

    def __init__(self) -> None:
        self.written = b""
        self.ended = self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.ended, "as a real one says"
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_extra_info(self, _name: str) -> None:
        return None


class App:
    """Answers each request once it may `go_on`. `asked` are the paths; if it `fails`, then behind its first answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.fails = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        first = not self.asked
        self.asked.append(scope["path"])
        await receive()
        await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"a"})
        if first and self.fails:
            raise ValueError("a bug")


@pytest.fixture
async def app() -> App:
    return App()


@pytest.fixture
async def transport() -> Transport:
    return Transport()


@pytest.fixture
async def line(app: App, transport: Transport) -> HttpProtocol:
    config = HttpConfig(app, http=HttpProtocol, ws="none", lifespan="off", log_config=None)
    config.load()
    made = HttpProtocol(config, ServerState())
    made.connection_made(transport)  # type: ignore[arg-type]  # as much of one as a connection uses
    return made


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_fails_behind_its_answer_takes_nothing_from_the_next(
    app: App, line: HttpProtocol, transport: Transport
) -> None:
    """The answer is whole, and another request has begun on the connection."""
    app.fails = True
    line.data_received(HEAD + HEAD)
    app.go_on.set()
    await _settle()
    assert transport.written.count(b"HTTP/1.1 200 OK") == 2
    assert not transport.closed


async def test_a_drain_leaves_who_is_still_sending_his_moment(
    app: App, line: HttpProtocol, transport: Transport
) -> None:
    """What comes is thrown away meanwhile: a connection that is closed upon it loses him his answer."""
    app.go_on.set()
    line.data_received(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\na")
    await _settle()
    assert transport.written.startswith(b"HTTP/1.1 200 ")
    line.shutdown()
    assert (transport.ended, transport.closed) == (True, False)


async def test_who_was_refused_in_his_body_is_not_asked_for_it(
    line: HttpProtocol, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """The application does not fail over it either."""
    line.data_received(
        b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\nno chunk"
    )
    await _settle()
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    assert caplog.records == []


async def test_who_asked_for_more_behind_the_last_has_his_moment_too(
    app: App, line: HttpProtocol, transport: Transport
) -> None:
    """Nothing was read while that waited: a connection that is closed upon it loses him the answer that he gets."""
    line.data_received(HEAD + HEAD)
    line.cut_short()
    app.go_on.set()
    await _settle()
    assert (app.asked, transport.ended, transport.closed) == (["/"], True, False)


@pytest.mark.parametrize("offer", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"])
@pytest.mark.parametrize("sizes", [(1.5, 0), (0.9, 0.2), (0.8, 0.3), (0, 1.1), (2, 0.1), (1, 1)])
async def test_a_head_that_is_too_large_is_refused_however_it_comes(
    app: App, line: HttpProtocol, transport: Transport, sizes: tuple[float, float], offer: bytes
) -> None:
    """In one piece or two, and with an offer to change protocols, for which it is read twice."""
    pieces = [b"a" * int(size * HEAD_BYTES) for size in sizes]
    line.data_received(HEAD + b"GET / HTTP/1.1\r\nhost: x\r\n" + offer + b"x-a: " + pieces[0])
    line.data_received(pieces[1] + b"\r\n\r\n")
    app.go_on.set()
    await _settle()
    assert (app.asked, transport.written.count(b"HTTP/1.1 431 ")) == (["/"], 1)


@pytest.mark.parametrize("before", [0, 3])
async def test_a_large_head_is_as_good_as_any(app: App, line: HttpProtocol, before: int) -> None:
    """Whatever came before it in the same piece."""
    app.go_on.set()
    body = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (HEAD_BYTES, b"a" * HEAD_BYTES)
    line.data_received(body * before + b"GET /last HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * int(0.9 * HEAD_BYTES))
    line.data_received(b"\r\n\r\n")
    await _settle()
    assert app.asked == before * ["/"] + ["/last"]


@pytest.mark.parametrize(("version", "told"), [(b"1.1", True), (b"1.0", False)])
async def test_only_who_knows_of_it_is_told_to_go_on(
    line: HttpProtocol, transport: Transport, version: bytes, told: bool
) -> None:
    line.data_received(b"POST / HTTP/%b\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n" % version)
    await _settle()
    assert (b" 100 " in transport.written) == told


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a%2Fb%20%ff?c", "/a/b \ufffd"),
        (b"//a/b", "//a/b"),
        (b"/a?b?c", "/a"),
        (b"/a#b", "/a"),
        (b"http://host:1/a?b", "/a"),
        (b"http://host", "/"),
        (b"http://host?a", "/"),
    ],
)
async def test_a_target_may_be_whole(app: App, line: HttpProtocol, target: bytes, path: str) -> None:
    """With scheme and host, as a proxy is asked: its path is what counts."""
    line.data_received(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % target)
    await _settle()
    assert app.asked == [path]
