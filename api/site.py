"""The one port of a process: which application answers which path, and the health of the process itself."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from api.metrics import Metrics
from api.router.errors import error_body

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]


class Site:
    """`mounts` maps path prefixes to applications, the longest match first; `reasons` says why the process is not ready;
    `new_id` makes the ids of what it answers itself."""

    def __init__(
        self,
        mounts: dict[str, App],
        reasons: Callable[[], list[str]],
        metrics: Metrics,
        new_id: Callable[[str], str],
    ) -> None:
        self._mounts = sorted(mounts.items(), key=lambda mount: -len(mount[0]))
        self._reasons, self._metrics, self._new_id = reasons, metrics, new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        for prefix, app in self._mounts:
            if path.startswith(prefix):
                await app(scope, receive, send)
                return
        status, body, kind = self._own(path)
        headers = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self._new_id("req").encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _own(self, path: str) -> tuple[int, bytes, bytes]:
        if path == "/healthz":
            return 200, b'{"status":"alive"}', b"application/json"
        if path == "/readyz":
            reasons = self._reasons()
            status = "ready" if not reasons else "not_ready"
            body = msgspec.json.encode({"status": status, "reasons": reasons})
            return (503 if reasons else 200), body, b"application/json"
        if path == "/metrics":
            return 200, self._metrics.render(), b"text/plain; version=0.0.4; charset=utf-8"
        return 404, error_body(404, "unknown_url", f"there is no {path:.200}"), b"application/json"
