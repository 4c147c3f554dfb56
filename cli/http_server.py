"""Serves one ASGI application over HTTP until SIGTERM or SIGINT, then drains."""

import signal
import socket
import sys
from typing import Any

import uvicorn

from domain.errors import TollhouseError

BACKLOG = 4096
DRAIN_SECONDS = 10


class _Server(uvicorn.Server):
    """Prints the one line that says that requests are accepted."""

    url = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"ready {self.url}", flush=True)


def run(app: Any, address: tuple[str, int]) -> None:
    """Serves `app` at host and port (0: any free one); returns after a drained stop. Raises `TollhouseError` if the address
    cannot be had. Prints ``ready http://HOST:PORT`` on stdout once it accepts requests."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise TollhouseError(f"cannot listen on {host}:{port}: {error.strerror}", code="address_in_use") from None
    server = _Server(
        uvicorn.Config(
            app,
            http="httptools",
            loop="uvloop",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    shown = f"[{host}]" if family == socket.AF_INET6 else host
    server.url = f"http://{shown}:{listener.getsockname()[1]}"
    # uvicorn raises the signal again when it has drained; a stop that was asked for is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run([listener])
    if not server.started:
        sys.exit(1)
