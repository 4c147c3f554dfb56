"""Dispatches an admitted request to its backend and brings the answer back, booking it before its last byte leaves."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from api.router.errors import RouterError
from api.router.exchange import Exchange, Headers
from api.router.faces.face import Carriage, Face, Relay
from api.router.limits import rate_headers
from commands.admission import Admitted
from commands.outcomes import Outcomes
from commands.ports import Upstream, UpstreamResponse
from domain.errors import UpstreamFailed
from domain.facts import Try, Usage
from domain.money import format_usd
from domain.scope import Target

_PASSED_HEADERS = (b"openai-", b"retry-after", b"x-should-retry")
"""Response headers of a backend that reach the caller, by prefix; all others are its own business."""

_PERHAPS_SERVED = frozenset({408, 499, 502, 504, *range(520, 528)})
"""Statuses of something in front of a model that gave up waiting: the model may have served, and charge for, the request."""

_CREDENTIAL = {"anthropic": b"x-api-key: "}
"""How a protocol takes its credential, where that is not as a bearer token."""

_CEILING_WITHOUT_CONTEXT = 100_000_000


class Forward:
    """`unseal` opens a stored credential."""

    def __init__(self, upstream: Upstream, outcomes: Outcomes, unseal: Callable[[str], str]) -> None:
        self._upstream, self._outcomes, self._unseal = upstream, outcomes, unseal
        self._loop = asyncio.get_running_loop()
        self._heads: dict[Target, bytes] = {}

    async def carry(
        self, exchange: Exchange, admitted: Admitted, face: Face, carriage: Carriage, target: Target, context: int
    ) -> None:
        """Raises `RouterError` (``upstream_error``, ``upstream_timeout``) once the failure is on the books."""
        began = time.monotonic()
        try:
            head = self.head(target) + carriage.headers + b"x-request-id: " + admitted.request.encode() + b"\r\n"
            payload = carriage.body(target.upstream_model, admitted.grant)
        except Exception:
            await self._outcomes.failed(admitted, "not_dispatched", backend=target.backend, tries=())
            raise
        try:
            response = await self._upstream.send(target.url, carriage.path, head, payload, target.timeout_seconds)
        except UpstreamFailed as failure:
            await self._lost(admitted, target, failure, began)
        ceiling = (context or _CEILING_WITHOUT_CONTEXT) * admitted.call.choices  # usage is the sum over all choices
        if response.streamed and response.status == 200:
            await self._stream(exchange, admitted, face, target, response, carriage.relay(ceiling), began)
        else:
            await self._plain(exchange, admitted, carriage, target, response, ceiling, began)

    # -- plain

    async def _plain(
        self,
        exchange: Exchange,
        admitted: Admitted,
        carriage: Carriage,
        target: Target,
        response: UpstreamResponse,
        ceiling: int,
        began: float,
    ) -> None:
        status = response.status
        tries = (Try(backend=target.backend, status=status, ms=self._ms(began)),)
        usage, body = carriage.answer(response.body, ceiling)
        if status in _PERHAPS_SERVED and usage is None:
            failure = UpstreamFailed(f"the backend answered {status}", sent=True)
            await self._outcomes.unconfirmed(admitted, failure, backend=target.backend, tries=tries)
            raise RouterError(failure.code, failure.message)
        if not 200 <= status < 300 and usage is None:
            await self._outcomes.failed(admitted, "upstream_status", backend=target.backend, tries=tries, status=status)
            if not 400 <= status < 500:
                raise RouterError("upstream_error", f"the backend answered {status}")
            headers = [(b"x-tollhouse-backend", target.backend.encode()), *_passed(response.headers)]
            await exchange.send_bytes(status, carriage.refusal(status, response.body), headers)
            return
        estimated = usage is None
        if usage is None:
            usage = _counted(admitted, math.ceil(len(response.body) / 4))
        cost, offset = await self._outcomes.completed(
            admitted, usage, backend=target.backend, tries=tries, status=status, estimated=estimated
        )
        headers = [
            (b"x-tollhouse-backend", target.backend.encode()),
            (b"x-tollhouse-cost-usd", format_usd(cost).encode()),
            (b"x-tollhouse-position", b"f%d.%d" % (admitted.caller.partition, offset)),
            *_budget_headers(admitted, cost),
            *_passed(response.headers),
        ]
        await exchange.send_bytes(status, body, headers)

    # -- streams

    async def _stream(
        self,
        exchange: Exchange,
        admitted: Admitted,
        face: Face,
        target: Target,
        response: UpstreamResponse,
        relay: Relay,
        began: float,
    ) -> None:
        headers: Headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            (b"x-tollhouse-backend", target.backend.encode()),
            *_budget_headers(admitted, None),
            *_passed(response.headers),
        ]
        await exchange.start(200, headers)
        gone = self._loop.create_task(exchange.left())
        gone.add_done_callback(lambda _: response.close())
        first_token: float | None = None
        failure: UpstreamFailed | None = None
        try:
            while data := await response.chunk():
                if passed := relay.feed(data):
                    if first_token is None:
                        first_token = self._ms(admitted.began)
                    await exchange.write(passed, more=True)
        except UpstreamFailed as error:
            failure = error
        except asyncio.CancelledError:  # the process ends: what was seen is charged, as if the caller had left
            self._outcomes.in_background(self._served(admitted, target, relay, began, first_token, abandoned=True))
            raise
        relay.end()
        if relay.done:  # the answer was whole, however the connection ended
            failure = None
        abandoned = gone.done()
        if failure is not None and not abandoned:
            tries = (Try(backend=target.backend, status=200, error=failure.code, ms=self._ms(began)),)
            await self._outcomes.unconfirmed(admitted, failure, backend=target.backend, tries=tries)
            closing = face.error_event(502, failure.code, failure.message)
        else:
            await self._served(admitted, target, relay, began, first_token, abandoned=abandoned)
            closing = relay.rest()
        if not abandoned:
            await exchange.write(closing, more=False)
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone

    async def _served(
        self,
        admitted: Admitted,
        target: Target,
        relay: Relay,
        began: float,
        first_token: float | None,
        *,
        abandoned: bool,
    ) -> None:
        """Books a stream by its last usage report, else by the events counted."""
        await self._outcomes.completed(
            admitted,
            relay.usage or _counted(admitted, relay.pieces),
            backend=target.backend,
            tries=(Try(backend=target.backend, status=200, ms=self._ms(began)),),
            estimated=relay.usage is None,
            abandoned=abandoned,
            first_token_ms=first_token,
        )

    # -- both

    async def _lost(self, admitted: Admitted, target: Target, failure: UpstreamFailed, began: float) -> NoReturn:
        """No whole answer came: it cost nothing if nothing was sent, and nobody knows what otherwise."""
        tries = (Try(backend=target.backend, error=failure.code, ms=self._ms(began)),)
        if failure.sent:
            await self._outcomes.unconfirmed(admitted, failure, backend=target.backend, tries=tries)
        else:
            await self._outcomes.failed(admitted, "upstream_refused", backend=target.backend, tries=tries)
        raise RouterError(failure.code, failure.message) from failure

    def head(self, target: Target) -> bytes:
        """The headers that every request of a target has, made once."""
        head = self._heads.get(target)
        if head is None:
            head = b"content-type: application/json\r\naccept: application/json, text/event-stream\r\nuser-agent: tollhouse\r\n"
            if target.credential is not None:
                name = _CREDENTIAL.get(target.protocol, b"authorization: Bearer ")
                head += name + self._unseal(target.credential).encode() + b"\r\n"
            if len(self._heads) > 1000:  # targets are made anew with every change of the keyring
                self._heads.clear()
            self._heads[target] = head
        return head

    def _ms(self, since: float) -> float:
        return round((time.monotonic() - since) * 1000, 3)


def _counted(admitted: Admitted, output: int) -> Usage:
    """What is charged where no usage was reported: about the input, and the output counted, at most what was granted."""
    call = admitted.call
    return Usage(input=call.estimated_input, output=min(output, admitted.grant * call.choices))


def _budget_headers(admitted: Admitted, cost: int | None) -> Headers:
    """The tightest budget's remainder (plain answers), the clamped output cap, rate limits."""
    headers: Headers = []
    granted = admitted.granted
    if cost is not None and granted.seen:
        left = min(hold.limit - hold.consumed - hold.held for hold in granted.seen) - cost
        headers.append((b"x-tollhouse-budget-remaining-usd", format_usd(left).encode()))
    if admitted.clamped:
        headers.append((b"x-tollhouse-output-cap", b"%d" % admitted.grant))
    if granted.rates:
        headers += rate_headers(granted.rates)
    return headers


def _passed(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name.startswith(_PASSED_HEADERS)]
