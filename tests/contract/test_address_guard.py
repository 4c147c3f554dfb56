"""A backend is connected to only where it may be, whatever its name says, and whenever."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from domain.errors import UpstreamFailed
from infra.adapters import upstream as upstream_module
from infra.adapters.address_guard import AddressGuard
from infra.adapters.upstream import HttpUpstream

PUBLIC = [
    "93.184.216.34",
    "2606:2800:220:1:248:1893:25c8:1946",
    "::ffff:93.184.216.34",
    "64:ff9b::5db8:d822",
    "2606:2800::5efe:5db8:d822",
]
LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]
PRIVATE = [
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "fc00::1",
    "fd12::1",
    "fec0::1",
    "::ffff:10.1.2.3",
    "2002:a01:203::",
    "2606:2800::5efe:a01:203",
    "fd12::5efe:5db8:d822",
]
NEVER = [
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
    "fe80::1%lo",
    "fe80::a9fe:a9fe",
    "224.0.0.1",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "0.1.2.3",
    "192.88.99.1",
    "3fff::1",
    "4000::1",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "::10.1.2.3",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "2001:0:a9fe:a9fe::",
    "2606:2800::200:5efe:a9fe:a9fe",
]


@pytest.mark.parametrize(
    ("loopback", "private", "allowed"),
    [
        (False, False, PUBLIC),
        (True, False, PUBLIC + LOOPBACK),
        (False, True, PUBLIC + LOOPBACK + PRIVATE),
        (True, True, PUBLIC + LOOPBACK + PRIVATE),
    ],
)
def test_an_address_is_judged_by_where_it_leads(loopback: bool, private: bool, allowed: list[str]) -> None:
    """Also one inside another. Link-local addresses, where clouds keep credentials, are never allowed."""
    guard = AddressGuard(loopback=loopback, private=private)
    assert [address for address in PUBLIC + LOOPBACK + PRIVATE + NEVER if guard.allows(address)] == allowed


HOSTS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "0x7f000001",
    "0x7f.1",
    "0",
    "0.0.0.0",
    "localhost",
    "LocalHost",
    "localhost.",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
]
"""This machine, in so many words."""


async def test_an_address_that_is_not_allowed_is_not_connected_to() -> None:
    """Not even to find out that somebody listens; surely nothing was sent, and the caller is not told which address it was."""
    came: list[object] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for host in HOSTS:
            upstream = HttpUpstream(AddressGuard(loopback=False, private=False))
            with pytest.raises(UpstreamFailed) as failed:
                await upstream.send(f"http://{host}:{port}/v1", "/x", b"", b"", 5.0)
            assert not failed.value.sent
            assert "127" not in str(failed.value)
            upstream.close()
    assert came == []


async def test_what_was_looked_at_is_what_is_connected_to() -> None:
    """A name is resolved once for each connection, by the guard: one that says something else later cannot lead elsewhere."""
    answers = [["10.0.0.1", "127.0.0.1"], ["192.168.7.7"]]
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers.pop(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://no-such-name.example:{server.sockets[0].getsockname()[1]}"
        upstream = HttpUpstream(AddressGuard(loopback=True, private=False, resolve=resolve))
        assert (await upstream.send(url, "/x", b"", b"", 5.0)).body == b"hi"
        with pytest.raises(UpstreamFailed, match="may not be connected to"):
            await upstream.send(url, "/x", b"", b"", 5.0)
        upstream.close()
    assert asked == ["no-such-name.example"] * 2


async def test_an_address_that_is_silent_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name has several, and one of them may be of a machine that is gone: the first that answers is connected to."""
    monkeypatch.setattr(upstream_module, "CONNECT_SECONDS", 2.0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = HttpUpstream(AddressGuard(loopback=True, private=False, resolve=resolve))
    with silent("127.0.0.2", port):
        try:
            response = await upstream.send(f"http://several.example:{port}", "/x", b"", b"", 30.0)
        finally:
            upstream.close()
            server.close()
    assert response.body == b"ok"


@contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """An address that takes no connection and refuses none: who listens there has as many as he may, and takes none of them."""
    with ExitStack() as open_:
        listener = open_.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        while True:
            caller = open_.enter_context(socket.socket())
            caller.settimeout(0.3)
            try:
                caller.connect((host, port))
            except TimeoutError:
                break
        yield


async def test_a_redirection_is_an_answer_like_another() -> None:
    """Nobody goes where a backend points, also not to where one may be connected to."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
        writer.write(b"HTTP/1.1 307 -\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        upstream = HttpUpstream(AddressGuard(loopback=True, private=False))
        answer = await upstream.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "/x", b"", b"", 5.0)
        upstream.close()
    assert (answer.status, asked) == (307, [b"/x"])


async def test_a_file_is_no_address() -> None:
    """A guarded client connects to no socket of this machine's file system, whatever listens there."""
    upstream = HttpUpstream(AddressGuard(loopback=True, private=True))
    with pytest.raises(UpstreamFailed, match="may not be connected to"):
        await upstream.send("unix:///var/run/docker.sock", "/x", b"", b"", 5.0)
    upstream.close()


async def test_a_name_is_asked_for_once_at_a_time() -> None:
    """However many wait for it, also if some of them give up; afterwards it is asked for again."""
    asked = 0
    answered = asyncio.Event()

    async def resolve(host: str, port: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        await answered.wait()
        return ["93.184.216.34"]

    guard = AddressGuard(loopback=False, private=False, resolve=resolve)
    waiting = [asyncio.ensure_future(guard.addresses("a.example", 443)) for _ in range(10)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    answered.set()
    assert await asyncio.gather(*waiting) == [["93.184.216.34"]] * 9
    assert asked == 1
    await guard.addresses("a.example", 443)
    assert asked == 2
