"""The entrance of the read API: who is asking is known before anything else happens, and every answer has its id."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.admin.entrance import REQUEST_ID
from api.read.deps import ReadDeps
from api.read.errors import refusal
from api.read.readers import authenticated
from domain.errors import TollhouseError

READER = "tollhouse.reader"
"""Scope key of the `Reader`."""


class Entrance:
    """ASGI middleware. Answers 401 and 503 itself; `public` paths need no key."""

    def __init__(self, app: ASGIApp, deps: ReadDeps, public: frozenset[str]) -> None:
        self._app, self._deps, self._public = app, deps, public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = self._deps.new_id("req")

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        if scope["path"] not in self._public:
            try:
                scope[READER] = await authenticated(self._deps, Headers(scope=scope))
            except TollhouseError as error:
                await refusal(error, scope["path"], request_id)(scope, receive, send_with_id)
                return
        if scope["path"].startswith("/v1/organization/"):
            # OpenAI's clients send lists as name[]=a&name[]=b
            scope["query_string"] = scope["query_string"].replace(b"%5B%5D=", b"=").replace(b"[]=", b"=")
        await self._app(scope, receive, send_with_id)
