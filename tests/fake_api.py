"""A server of canned answers that remembers what it was asked, for tests of the command line."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeApi:
    """Answers by (method, path): each answer once, the last one for ever; 404 for the rest."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    _answers: dict[tuple[str, str], list[tuple[int, bytes, dict[str, str]]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def on(self, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self._answers[method, path].append((status, content, {k.replace("_", "-"): v for k, v in headers.items()}))

    def refuse(self, method: str, path: str, status: int, code: str, **extra: Any) -> None:
        """A problem document."""
        self.on(method, path, {"status": status, "code": code, "detail": f"because of {code}", **extra}, status)

    def answer(self, method: str, path: str) -> tuple[int, bytes, dict[str, str]]:
        answers = self._answers.get((method, path))
        if not answers:
            return 404, b'{"code":"not_found","detail":"nothing here"}', {}
        return answers.pop(0) if len(answers) > 1 else answers[0]


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    """Runs one on a free port of 127.0.0.1."""
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            api.asked.append(Asked(self.command, url.path, dict(parse_qsl(url.query)), headers, body))
            status, content, extra = api.answer(self.command, url.path)
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
