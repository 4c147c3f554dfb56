"""How much later a streamed answer begins through a proxy than from the backend itself, and how many bytes a whole one has."""

import socket
import statistics
import time
from urllib.parse import urlsplit

from tests.bench.calls import REST, Call
from tests.bench.processes import on_cores


class Caller:
    """One keep-alive connection that asks for the same streamed answer again and again."""

    def __init__(self, call: Call) -> None:
        url = urlsplit(call.url)
        assert url.hostname is not None
        lines = [f"{name}: {value}" for name, value in {**call.headers, "content-type": "application/json"}.items()]
        head = f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-length: {len(call.body)}\r\n"
        self._request = (head + "".join(f"{line}\r\n" for line in lines) + "\r\n" + call.body).encode()
        self._socket = socket.create_connection((url.hostname, url.port or 80), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> tuple[float, int]:
        """Milliseconds until the first event began, and the bytes of the whole answer. Raises `RuntimeError` on a refusal."""
        began, came, first = time.perf_counter(), b"", 0.0
        self._socket.sendall(self._request)
        while not came.endswith(b"\r\n0\r\n\r\n"):
            piece = self._socket.recv(1 << 16)
            came += piece
            if not first and b"\r\n\r\n" in came and b"data:" in came:
                first = (time.perf_counter() - began) * 1000
            if not piece or not came.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"no stream: {came[:600]!r}")
        return first, len(came)

    def close(self) -> None:
        self._socket.close()


def added(through: Call, direct: Call, seconds: float) -> float:
    """Milliseconds, of the medians; the two are asked in turn."""
    with on_cores([REST]):
        callers = Caller(through), Caller(direct)
        seen: tuple[list[float], list[float]] = ([], [])
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(seen[1]) < 3:
            for caller, found in zip(callers, seen, strict=True):
                found.append(caller.ask()[0])
        for caller in callers:
            caller.close()
    return statistics.median(seen[0]) - statistics.median(seen[1])


def length(call: Call) -> int:
    """Bytes of one whole answer, its head and framing included."""
    caller = Caller(call)
    try:
        return caller.ask()[1]
    finally:
        caller.close()
