"""Runs an ASGI application until a signal: uvicorn with httptools, the ready line, and a drain at the end."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cli.running import keep_start_in_memory, search_cycles_seldom
from cli.slow_callers import SlowCallers
from domain.errors import TollhouseError

DRAIN_SECONDS = 30

HEAD_BYTES = 64 * 1024
"""About what a request may send beside its body: request line, headers, and the framing of a chunked body."""


async def serve_app(
    app: Any,
    address: tuple[str, int] | str,
    ready: Callable[[str], None],
    failed: "asyncio.Future[None] | None" = None,
    stopping: Callable[[], None] = lambda: None,
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    slow: SlowCallers | None = None,
) -> None:
    """Serves on HOST, PORT (or a unix socket's path) until one of `signals`, then finishes what is under way.

    `ready` gets the base URL once requests are accepted; `stopping` is called when the end begins, to end what never ends
    by itself. Raises what `failed` holds if that ends the process, and `TollhouseError` (``address_in_use``) if the address
    cannot be had.
    """
    config = uvicorn.Config(
        app,
        loop="none",
        http=_Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=8192,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    if isinstance(address, str):
        config.uds = address
        listener, url = None, f"unix:{address}"
    else:
        listener = _listen(address)
        host, port = listener.getsockname()[:2]
        url = f"http://{host}:{port}"
    server = _Server(config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping()
        server.should_exit = True

    for number in signals:
        loop.add_signal_handler(number, stop)
    serving = asyncio.ensure_future(server.serve(sockets=[listener] if listener else None))
    looking = asyncio.ensure_future((slow or SlowCallers()).run(server.server_state.connections))
    try:
        await server.until_started(serving)
        keep_start_in_memory()
        search_cycles_seldom()
        ready(url)
        ends = [serving, looking, *([failed] if failed else [])]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        for end in ends:
            if end.done():
                end.result()
    finally:
        looking.cancel()
        for number in signals:
            loop.remove_signal_handler(number)


def _listen(address: tuple[str, int]) -> socket.socket:
    try:
        return socket.create_server(address, backlog=8192, reuse_port=False)
    except OSError as error:
        host, port = address
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror  # negative: of the resolver
        raise TollhouseError(f"cannot listen on {host}:{port}: {reason}", code="address_in_use") from None


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with an end to heads: it would collect one without limit, in a time that grows with its square,
    before anybody knows who is asking."""

    _beside = 0
    resumed = 0
    """How often what was to be sent had grown too large, and found room again."""

    def resume_writing(self) -> None:
        self.resumed += 1
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._beside += len(data)
        super().data_received(data)
        if self._beside > HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 431 -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def on_message_begin(self) -> None:
        self._beside = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._beside = max(0, self._beside - 2 * len(body))  # the framing of a chunked body grows with it
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._beside = 0
        super().on_message_complete()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the loop has ours."""

    async def until_started(self, serving: "asyncio.Future[None]") -> None:
        while not self.started:
            if serving.done():
                serving.result()
                raise RuntimeError("the server ended before it began")
            await asyncio.sleep(0.005)

    def capture_signals(self) -> Any:
        import contextlib

        return contextlib.nullcontext()
