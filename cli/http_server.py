"""Runs an ASGI application until a signal: uvicorn's server, the ready line, and a drain at the end."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import uvicorn

from cli.http_protocol import HttpConfig, HttpProtocol
from cli.running import keep_start_in_memory, search_cycles_seldom
from cli.slow_callers import SlowCallers
from domain.errors import TollhouseError

DRAIN_SECONDS = 30
"""How long what is under way is waited for at the end. What outlasts it is cancelled: it is answered 503, or breaks."""

LAST_WORD_SECONDS = 2.0
"""How long what was cancelled may take to say so."""


async def serve_app(
    app: Any,
    address: tuple[str, int] | str,
    ready: Callable[[str], None],
    failed: "asyncio.Future[None] | None" = None,
    stopping: Callable[[], None] = lambda: None,
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    slow: SlowCallers | None = None,
    observe: Callable[[str, int, str], None] | None = None,
    shared: bool = False,
) -> None:
    """Serves on HOST, PORT (or a unix socket's path) until one of `signals`, then finishes what is under way.

    `shared`: other processes may listen at the same HOST, PORT.

    `ready` gets the base URL once requests are accepted; `stopping` is called when the end begins, to end what never ends
    by itself; `observe(endpoint, status, code)` counts what was refused before it was a request. Raises what `failed` holds if
    that ends the process, and `TollhouseError` (``address_in_use``) if the address cannot be had.
    """
    config = HttpConfig(
        app,
        loop="none",
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=8192,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    config.observe = observe
    if isinstance(address, str):
        config.uds = address
        listener, url = None, f"unix:{address}"
    else:
        listener = listen(address, shared)
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


def listen(address: tuple[str, int], shared: bool = False) -> socket.socket:
    """A socket that listens, `shared` with others that share it. Raises `TollhouseError` (``address_in_use``)."""
    try:
        return socket.create_server(address, backlog=8192, reuse_port=shared)
    except OSError as error:
        host, port = address
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror  # negative: of the resolver
        raise TollhouseError(f"cannot listen on {host}:{port}: {reason}", code="address_in_use") from None


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the loop has ours."""

    async def until_started(self, serving: "asyncio.Future[None]") -> None:
        while not self.started:
            if serving.done():
                serving.result()
                raise RuntimeError("the server ended before it began")
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if cancelled := list(self.server_state.tasks):
            for connection in self.server_state.connections:
                connection.cut_short()  # type: ignore[union-attr]  # ours
            await asyncio.wait(cancelled, timeout=LAST_WORD_SECONDS)

    def capture_signals(self) -> Any:
        return nullcontext()
