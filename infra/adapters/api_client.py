"""The command API and the read API, as the command line calls them: one server, one admin key, standard library only.

Answers are documents; refusals become the errors of `domain.errors` with the server's code and message. A command carries an
Idempotency-Key of its own, so the one repetition after a broken connection cannot apply it twice. A read waits for what this
client has written before (`x-tollhouse-position`).
"""

import http.client
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from domain.errors import (
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    TollhouseError,
    Unauthenticated,
    Unavailable,
    VersionConflict,
    invalid,
)

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """A successful answer: its JSON document (None when it had no body) and ETag."""

    status: int
    doc: Any
    etag: str | None


class ApiClient:
    """Calls one server. Every method raises `TollhouseError`: by status, or `Unavailable` when the server cannot be reached."""

    def __init__(self, url: str, admin_key: str | None, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise invalid("url", f"must be like http://127.0.0.1:8080; got {url!r:.80}")
        self.url = url
        self._parts, self._timeout = parts, timeout
        self._headers = {"accept": "application/json", "user-agent": "tollhouse-cli"}
        if admin_key is not None:
            self._headers["authorization"] = f"Bearer {admin_key}"
        self._connection: http.client.HTTPConnection | None = None
        self._position: str | None = None

    def get(self, path: str, params: Params | None = None) -> Any:
        """The document at `path`."""
        return self._call("GET", path, params, None, {}).doc

    def send(
        self, method: str, path: str, body: Any = None, params: Params | None = None, etag: str | None = None
    ) -> ApiAnswer:
        """Carries out one command, once; with `etag` only if nobody changed the thing since."""
        headers = {"idempotency-key": str(uuid.uuid4())}
        if etag is not None:
            headers["if-match"] = etag
        return self._call(method, path, params, {} if body is None and method == "POST" else body, headers)

    def pages(self, path: str, params: Params | None = None) -> Iterator[Any]:
        """The documents of a list, page by page: each has its items in ``data``."""
        query = dict(params or {})
        while True:
            page = self.get(path, query)
            yield page
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]

    def text(self, path: str, params: Params | None = None) -> Iterator[bytes]:
        """The body of an export, piece by piece as it comes."""
        response = self._open("GET", path, params, None, {"accept": "*/*"})
        while piece := response.read1(65536):
            yield piece

    def events(self, path: str, params: Params | None = None) -> Iterator[Any]:
        """The documents of a stream of server-sent events, as they come, until the server ends it."""
        response = self._open("GET", path, params, None, {"accept": "text/event-stream"}, follow=True)
        for line in response:
            if line.startswith(b"data:"):
                yield json.loads(line[5:])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(self, method: str, path: str, params: Params | None, body: Any, headers: Mapping[str, str]) -> ApiAnswer:
        response = self._open(method, path, params, body, headers)
        try:
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the answer of {self.url} broke off: {error}") from None
        try:
            doc = json.loads(content) if content else None
        except ValueError:
            raise TollhouseError(f"{self.url}{path} did not answer JSON: is it a Tollhouse server?") from None
        return ApiAnswer(response.status, doc, response.headers.get("etag"))

    def _open(
        self, method: str, path: str, params: Params | None, body: Any, headers: Mapping[str, str], follow: bool = False
    ) -> http.client.HTTPResponse:
        target = self._parts.path.rstrip("/") + path
        query = urlencode({k: v for k, v in (params or {}).items() if v is not None}, doseq=True)
        data = None if body is None else json.dumps(body).encode()
        sent = {**self._headers, **headers}
        if data is not None:
            sent["content-type"] = "application/json"
        if self._position is not None and method == "GET":
            sent["x-tollhouse-position"] = self._position
        response = self._exchange(method, f"{target}?{query}" if query else target, data, sent, follow)
        if response.status >= 300:
            raise _refusal(response.status, response.read(), response.headers.get("x-request-id"))
        self._position = response.headers.get("x-tollhouse-position") or self._position
        return response

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str], follow: bool
    ) -> http.client.HTTPResponse:
        repeatable = method == "GET" or "idempotency-key" in headers
        for attempt in (1, 2):
            connection = self._connected(follow)
            try:
                connection.request(method, target, data, dict(headers))
                return connection.getresponse()
            except ConnectionRefusedError:
                self.close()
                raise Unavailable(f"nothing answers at {self.url}", code="unreachable") from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if attempt == 2 or not repeatable or isinstance(error, TimeoutError):
                    raise Unavailable(f"{self.url}: {error or type(error).__name__}", code="unreachable") from None
        raise AssertionError("the second attempt returns or raises")

    def _connected(self, follow: bool) -> http.client.HTTPConnection:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
            assert self._parts.hostname is not None
            self._connection = kind(self._parts.hostname, self._parts.port, timeout=self._timeout)
        if follow:
            self._connection.timeout = None
            if self._connection.sock is not None:
                self._connection.sock.settimeout(None)
        return self._connection


_KINDS: dict[int, type[TollhouseError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: VersionConflict,
}


def _refusal(status: int, body: bytes, request_id: str | None) -> TollhouseError:
    """The error of a problem document (or of an OpenAI error object)."""
    try:
        doc = json.loads(body)
    except ValueError:
        doc = {}
    if not isinstance(doc, dict):
        doc = {}
    problem = doc["error"] if isinstance(doc.get("error"), dict) else doc
    code = problem.get("code") or f"http_{status}"
    message = problem.get("detail") or problem.get("message") or problem.get("title") or f"HTTP status {status}"
    if status >= 500 and request_id is not None:
        message += f" (request {request_id})"
    if status in (400, 413, 422):
        errors = [FieldError(str(item.get("field")), str(item.get("message"))) for item in problem.get("errors") or ()]
        return Invalid(*(errors or [FieldError(code, message)]), code=code)
    return _KINDS.get(status, Unavailable if status >= 500 else TollhouseError)(message, code=code)
