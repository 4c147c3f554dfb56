"""The entrance of the command API: who is asking is known, and the body is whole and small, before anything else happens."""

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.admin.text import require_text
from api.problems import problem, problem_of
from commands.ports import Directory, Entry, Secrets
from domain.credential import ADMIN, well_formed
from domain.errors import TollhouseError, Unauthenticated

ADMIN_ENTRY = "tollhouse.admin"
"""Scope key of the caller's admin key, a `commands.ports.Entry`."""

BODY = "tollhouse.body"
"""Scope key of the whole request body."""

REQUEST_ID = "tollhouse.request_id"
"""Scope key of our id of the request; every answer has it as ``x-request-id``."""


class Entrance:
    """ASGI application over `app`. Answers 401, 413 and 415 itself; `public` paths need no key. A caller who leaves before the
    body was whole is not answered: half a command is none."""

    def __init__(
        self,
        app: ASGIApp,
        directory: Directory,
        secrets: Secrets,
        new_id: Callable[[], str],
        max_body: int,
        public: frozenset[str],
    ) -> None:
        self._app = app
        self._directory = directory
        self._secrets = secrets
        self._new_id = new_id
        self._max_body = max_body
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = self._new_id()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            headers = Headers(scope=scope)
            if scope["path"] not in self._public:
                scope[ADMIN_ENTRY] = await self._authenticated(headers)
            body = await self._body(headers, receive)
        except TollhouseError as error:
            await problem_of(error, request_id)(scope, receive, send_with_id)
            return
        except _Refused as refused:
            status, code, detail = refused.args
            await problem(status, code, detail, request_id=request_id)(scope, receive, send_with_id)
            return
        scope[BODY] = body
        await self._app(scope, _replayed(body, receive), send_with_id)

    async def _authenticated(self, headers: Headers) -> Entry:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        found = None
        if well_formed(key, ADMIN):
            hashed = self._secrets.hash(key)
            found = self._directory.admin_at_hand(hashed) or await asyncio.to_thread(self._directory.admin, hashed)
        if found is None:
            raise Unauthenticated("an admin key (th_ak_…) is needed as a bearer token")
        return found

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body. Raises `_Refused`, and `Invalid` naming a string that is no text."""
        too_large = _Refused(413, "request_too_large", f"the body is larger than {self._max_body} bytes")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_body:
            raise too_large
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _Refused(415, "unsupported_encoding", "the body must come as it is, without a content-encoding")
        chunks, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Refused(408, "request_timeout", "the caller left before the body was whole")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body:
                raise too_large
            chunks.append(chunk)
            more = message.get("more_body", False)
        body = b"".join(chunks)
        require_text(body)
        return body


class _Refused(Exception):
    """Status, code and what was wrong with a body."""


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
