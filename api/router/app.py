"""The router's ASGI application: authenticates, admits, dispatches, relays, and answers only what is on the books.

The order of a request is the protocol's (`docs/protocol.md`); this module is its HTTP. A caller who leaves a plain
request changes nothing: it is read to its end, so that its usage is exact. A caller who leaves a stream ends it; what
was seen is charged.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVarTuple

import msgspec

from api.router.admitting import Admitting
from api.router.counting import TokenCount, parse_count
from api.router.errors import BOOKED, PROCESS_ENDS, STATUS, RouterError
from api.router.exchange import Exchange, ReadDeadline
from api.router.faces.anthropic import AnthropicFace
from api.router.faces.chat import ChatFace
from api.router.faces.completions import CompletionsFace
from api.router.faces.embeddings import EmbeddingsFace
from api.router.faces.face import Errors, Face
from api.router.faces.messages import MessagesFace
from api.router.faces.openai import OpenAIFace
from api.router.faces.responses import ResponsesFace
from api.router.failover import Failover
from api.router.forward import Forward
from api.router.heads import Heads
from api.router.limits import rate_headers
from api.router.places import Places
from api.router.ways import Ways
from commands.admission import Admission, Denied
from commands.backend_choice import BackendChoice
from commands.denials import Denials
from commands.gate import Refused
from commands.outcomes import Outcomes
from commands.ports import Clock, Upstream
from commands.rates import limit_document
from commands.tracing import Spans, told, trace_of
from domain.errors import NotReady, TollhouseError
from domain.money import format_usd
from domain.period import window
from domain.scope import Caller
from projections.keyring import Keyring

Given = TypeVarTuple("Given")
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_log = logging.getLogger("tollhouse.router")

_MAX_HASHES = 200_000
_MAX_NAME = 200
"""Characters that are kept of a model's name that may be anything."""

_FACES: Mapping[str, Face] = {
    "/v1/chat/completions": ChatFace(),
    "/v1/completions": CompletionsFace(),
    "/v1/embeddings": EmbeddingsFace(),
    "/v1/responses": ResponsesFace(),
    "/v1/messages": MessagesFace(),
}
_OPENAI, _ANTHROPIC = OpenAIFace(), AnthropicFace()

DEFAULT_MAX_BODY = 32 * 1024 * 1024


@dataclass(slots=True)
class Router:
    """Everything a router needs. `hash_key` answers the keyed hash of a presented key, None for one that cannot be ours;
    `observe(endpoint, status, code)` counts; `spans` are told, if there are any."""

    keyring: Keyring
    admission: Admission
    outcomes: Outcomes
    denials: Denials
    upstream: Upstream
    clock: Clock
    new_id: Callable[[str], str]
    hash_key: Callable[[str], str | None]
    heads: Heads
    observe: Callable[[str, int, str], None]
    once_secret: bytes
    choice: BackendChoice
    places: Places
    spans: Spans | None = None
    max_body: int = DEFAULT_MAX_BODY
    read_timeout: float = 30.0
    _admitting: Admitting = field(init=False)
    _failover: Failover = field(init=False)
    _counting: TokenCount = field(init=False)
    _reading: ReadDeadline = field(init=False)
    _hashes: dict[bytes, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reading = ReadDeadline(self.read_timeout)
        forward = Forward(self.upstream, self.outcomes, self.heads)
        ways = Ways(self.choice)
        self._admitting = Admitting(self.keyring, ways, lambda: self.admission)
        self._failover = Failover(forward, self.outcomes, ways, self.keyring, self._admitting, self._known)
        self._counting = TokenCount(self.upstream, self.heads, self.choice)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request under ``/v1/``."""
        exchange = Exchange(self.new_id("req"), scope, receive, send)
        method, path = scope["method"], scope["path"]
        endpoint, code = "unknown", ""
        face = _FACES.get(path)
        protocol = _protocol(path, exchange)
        show: Errors = face or protocol
        exchange.id_header = protocol.id_header
        try:
            if face is not None and method == "POST":
                endpoint = face.endpoint
                await self._in_a_place(self._infer, exchange, face)
            elif method == "POST" and path == "/v1/messages/count_tokens":
                endpoint = "messages.count_tokens"
                await self._in_a_place(self._count, exchange)
            elif method == "GET" and path == "/v1/models":
                endpoint = "models"
                await exchange.send_json(200, protocol.models(self._models(self._caller(exchange))))
            elif method == "GET" and path.startswith("/v1/models/"):
                endpoint = "models"
                name = self._model(self._caller(exchange), path[len("/v1/models/") :])
                await exchange.send_json(200, protocol.model(name))
            else:
                raise RouterError("unknown_url", f"there is no {method} {path:.200}")
        except TollhouseError as error:
            code = error.code
            await self._refuse(exchange, error, show)
        except asyncio.CancelledError:  # the drain is over; the books are written in the background
            code = NotReady.code
            if exchange.started:
                raise  # the server cuts the connection
            await self._refuse(exchange, NotReady(PROCESS_ENDS), show)
        except Exception:
            _log.exception("request %s", exchange.id)
            code = "internal_error"
            if exchange.started:
                raise  # the server cuts the connection: a torn answer must not look whole
            await self._refuse(exchange, TollhouseError("an error of ours; it is in the log", code=code), show)
        self.observe(endpoint, exchange.status, code)
        if self.spans is not None and (call := exchange.called) is not None and call.trace is not None:
            self.spans.request(call.trace, exchange.id, endpoint, call.model[:_MAX_NAME], exchange.status, code)

    # -- inference

    async def _in_a_place(self, answer: Callable[[*Given], Awaitable[None]], *given: *Given) -> None:
        """As one of the requests that may be under way at a time."""
        if not self.places.take():
            await self.places.wait()
        try:
            await answer(*given)
        finally:
            self.places.leave()

    async def _infer(self, exchange: Exchange, face: Face) -> None:
        hashed = self._hash_of(exchange)
        caller, body = await self._taken_in(exchange, hashed)
        asked = face.parse(body, exchange.header)
        call = asked.call
        call.once = self._once(exchange, caller)
        call.trace = trace_of(exchange.header)
        if self.spans is not None:
            call.trace = told(call.trace, exchange.id)
            exchange.called = call
        try:
            admitted, way = await self._admitting.first(exchange, caller, asked)
        except (Denied, RouterError) as error:
            denied = error if isinstance(error, Denied) else _denied(error)
            status = self._status(denied, caller)
            self.denials.add(exchange.id, caller, call.endpoint, call.model[:_MAX_NAME], status, denied, call.trace)
            raise self._explained(denied, caller, status) from error
        await self._failover.carry(exchange, admitted, face, way, hashed)

    async def _count(self, exchange: Exchange) -> None:
        caller, body = await self._taken_in(exchange, self._hash_of(exchange))
        asked = parse_count(body, exchange.header)
        await self._counting.answer(exchange, asked, self._admitting.published(caller, asked.model))

    async def _taken_in(self, exchange: Exchange, hashed: str | None) -> tuple[Caller, bytes]:
        """Who asks, and the body."""
        await self._known(hashed)  # strangers' bodies are not taken in
        body = await self._reading.bound(exchange.read_body(self.max_body))
        return await self._known(hashed), body  # who that is now: the body may have taken its time

    def _once(self, exchange: Exchange, caller: Caller) -> str | None:
        """The keyed hash of service key and Idempotency-Key: what the gate and the facts keep of it."""
        key = exchange.header(b"idempotency-key")
        if not key:
            return None
        named = f"{caller.org}/{caller.key}/".encode() + key
        return hmac.new(self.once_secret, named, hashlib.sha256).hexdigest()[:32]

    # -- who asks, what is there

    def _caller(self, exchange: Exchange) -> Caller:
        return self._who(self._hash_of(exchange))

    async def _known(self, hashed: str | None) -> Caller:
        """As `_who`, by a view that is fresh again in a moment if it is not."""
        if not self.keyring.fresh(time.monotonic()):
            await self.keyring.renewed()
        return self._who(hashed)

    def _who(self, hashed: str | None) -> Caller:
        """Absent, unknown, revoked and expired keys look the same from outside."""
        if not self.keyring.fresh(time.monotonic()):
            raise NotReady("this gateway's view of keys is older than it may be")
        caller = self.keyring.caller(hashed, self.clock()) if hashed else None
        if caller is None:
            raise RouterError("invalid_api_key", "no valid API key: send Authorization: Bearer th_sk_…")
        return caller

    def _hash_of(self, exchange: Exchange) -> str | None:
        """The keyed hash of the key presented. Those of known keys are remembered, under a digest: no key's text is kept."""
        secret = exchange.secret()
        if not secret:
            return None
        digest = hashlib.sha256(secret.encode()).digest()
        hashed = self._hashes.get(digest)
        if hashed is None:
            hashed = self.hash_key(secret)
            if hashed is not None and self.keyring.caller(hashed, self.clock()) is not None:
                if len(self._hashes) >= _MAX_HASHES:
                    self._hashes.clear()
                self._hashes[digest] = hashed
        return hashed

    def _models(self, caller: Caller) -> list[str]:
        """The models that the caller may use."""
        return [m.id for m in self.keyring.models() if caller.models is None or m.id in caller.models]

    def _model(self, caller: Caller, name: str) -> str:
        """One of them."""
        if self.keyring.model(name) is None or (caller.models is not None and name not in caller.models):
            raise RouterError("model_not_found", f"there is no model {name!r:.200}", param="model")
        return name

    # -- refusals

    async def _refuse(self, exchange: Exchange, error: TollhouseError, show: Errors) -> None:
        if exchange.started:
            return
        status = getattr(error, "status", None) or STATUS.get(error.code, 500)
        headers: list[tuple[bytes, bytes]] = list(getattr(error, "headers", ()))
        if status == 503:
            headers.append((b"retry-after", b"1"))
        extra = getattr(error, "extra", None)
        body = show.error(status, error.code, error.message, getattr(error, "param", None), extra, exchange.id)
        await exchange.send_bytes(status, body, headers)

    def _status(self, denied: Denied, caller: Caller) -> int:
        return caller.budget_status if denied.code == "insufficient_quota" else STATUS[denied.code]

    def _explained(self, denied: Denied, caller: Caller, status: int) -> "_Refusal":
        """The refusal with what the caller can act on: the budget, when to come back, the first request."""
        refused = denied.refused or Refused(denied.code)
        extra: dict[str, Any] = {}
        headers = rate_headers(refused.rates)
        if refused.budget is not None:
            extra["budget"] = self._budget_json(caller, refused)
        if refused.rate is not None:
            extra["limit"] = limit_document(refused.rate)
        if refused.first is not None:
            extra["request_id"], extra["outcome"] = refused.first, refused.outcome
        hopeless = denied.code == "rate_limit_exceeded" and refused.retry_after is None
        if hopeless or denied.code in ("insufficient_quota", "duplicate_request"):
            headers.append((b"x-should-retry", b"false"))
        if refused.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(refused.retry_after + 0.5))))
        return _Refusal(denied, status, extra, headers)

    def _budget_json(self, caller: Caller, refused: Refused) -> dict[str, Any]:
        seen = next(hold for hold in refused.seen if hold.budget == refused.budget)
        budget = next(b for b in caller.budgets if b.id == refused.budget)
        end = window(budget.period, self.clock()).end
        return {
            "id": budget.id,
            "scope": msgspec.to_builtins(budget.scope),
            "limit_usd": format_usd(seen.limit),
            "consumed_usd": format_usd(seen.consumed),
            "held_usd": format_usd(seen.held),
            "period_end": end.isoformat().replace("+00:00", "Z") if end else None,
        }


def _denied(error: RouterError) -> Denied:
    return Denied(error.code, error.message, param=error.param, reason=BOOKED.get(error.code))


class _Refusal(RouterError):
    def __init__(self, denied: Denied, status: int, extra: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> None:
        super().__init__(denied.code, denied.message, param=denied.param, extra=extra)
        self.status, self.headers = status, headers


def _protocol(path: str, exchange: Exchange) -> OpenAIFace | AnthropicFace:
    """Whose shapes an answer has that no face gives: its path says it, or for what both have, the client's own header."""
    anthropic = path.startswith("/v1/messages") or (
        path.startswith("/v1/models") and exchange.header(b"anthropic-version") is not None
    )
    return _ANTHROPIC if anthropic else _OPENAI
