"""One try at a backend: sends an admitted request there and brings the answer back, booking it before its last byte leaves."""

import asyncio
import math
import time
from functools import partial

from api.router.answer_headers import plain_headers, refusal_headers
from api.router.departure import Departure, Left
from api.router.errors import PROCESS_ENDS, RouterError
from api.router.exchange import Exchange
from api.router.faces.face import Face
from api.router.heads import Heads
from api.router.passage import LEFT, SLOW_MS, Failed, Passage
from api.router.streaming import Streaming
from api.router.ways import Way
from commands.admission import Admitted, Call
from commands.outcomes import Outcomes
from commands.ports import NotSent, Upstream, UpstreamResponse
from domain.errors import NotReady, UpstreamFailed
from domain.facts import Try
from domain.upstream_status import Said, said_by

_CEILING_WITHOUT_CONTEXT = 100_000_000
"""Tokens, where no context window bounds a report."""


_ENDING = NotReady(PROCESS_ENDS)


class Forward:
    """One per gateway."""

    def __init__(self, upstream: Upstream, outcomes: Outcomes, heads: Heads) -> None:
        self._upstream, self._outcomes, self._heads = upstream, outcomes, heads
        self._streaming = Streaming(outcomes)

    async def carry(
        self, exchange: Exchange, admitted: Admitted, face: Face, way: Way, before: tuple[Try, ...] = ()
    ) -> Failed | None:
        """None: the caller has an answer, or has left its stream, and it is on the books. `before` are the tries that came before
        under the same hold. Ends the claim of `way`."""
        departure = Departure(exchange) if admitted.call.stream else None
        passage = Passage(exchange, admitted, face, way, before, time.monotonic(), departure)
        try:
            return await self._carry(passage)
        finally:
            way.claim.released()  # does nothing where more was to say
            if passage.departure is not None:
                await passage.departure.close()

    async def _carry(self, passage: Passage) -> Failed | None:
        admitted, way = passage.admitted, passage.way
        target, carriage, terms = way.target, way.carriage, way.target.terms
        try:
            head = self._heads.of(target) + carriage.headers + b"x-request-id: " + admitted.attempt.encode() + b"\r\n"
            if (trace := admitted.call.trace) is not None:
                head += trace.lines(admitted.attempt, len(passage.before))
            payload = carriage.body(target.upstream_model, admitted.grant, terms.output_cap_field)
        except Exception:
            await self._outcomes.failed(admitted, "not_dispatched", backend=target.backend, tries=passage.before)
            raise
        timeout = target.timeout_seconds
        if passage.before:  # all tries under one hold end by its deadline
            timeout = min(timeout, admitted.began + way.model.patience - passage.began)
        first_byte, idle = terms.first_byte_seconds, terms.idle_seconds
        ask = partial(self._upstream.send, target.url, carriage.path, head, payload, timeout, first_byte, idle)
        try:
            response = await (ask() if passage.departure is None else passage.departure.unless(ask))
        except UpstreamFailed as failure:
            return _lost(passage, failure)
        except Left as left:
            passage.exchange.status = LEFT
            await self._left(passage, sent=left.sent)
            return None
        except asyncio.CancelledError as cancelled:  # the process ends
            sent = not isinstance(cancelled, NotSent)
            self._outcomes.in_background(self._unanswered(passage, sent=sent))
            raise
        ceiling = _ceiling(admitted.call, way.model.context_tokens)
        if response.streamed and response.status == 200:
            return await self._streaming.bring(passage, response, carriage.relay(ceiling))
        return await self._plain(passage, response, ceiling)

    async def _left(self, passage: Passage, *, sent: bool) -> None:
        """Books a stream whose caller left before it was answered: what was seen of it is its input, if it was `sent`."""
        tries = (*passage.before, passage.tried(0, "caller_left"))
        if not sent:
            await self._outcomes.failed(passage.admitted, "not_dispatched", backend=passage.backend, tries=tries)
            return
        seen = passage.counted(0)
        await self._outcomes.completed(
            passage.admitted, seen, backend=passage.backend, tries=tries, status=LEFT, estimated=True, abandoned=True
        )

    async def _unanswered(self, passage: Passage, *, sent: bool) -> None:
        """Books a try that the end of the process cuts short: nobody knows what it cost, if it was `sent`."""
        admitted, backend = passage.admitted, passage.backend
        tries = (*passage.before, passage.tried(0, _ENDING.code))
        if sent:
            await self._outcomes.unconfirmed(admitted, _ENDING, backend=backend, tries=tries)
        else:
            await self._outcomes.failed(admitted, "not_dispatched", backend=backend, tries=tries)

    async def _plain(self, passage: Passage, response: UpstreamResponse, ceiling: int) -> Failed | None:
        status, backend = response.status, passage.backend
        tried = passage.tried(status)
        usage, body = passage.way.carriage.answer(response.body, ceiling)
        said = said_by(status)
        if usage is None and said is not Said.SERVED:
            return _refused(passage, response, tried, said)
        passage.way.claim.served(tried.ms / 1000)
        cost, offset = await self._outcomes.completed(
            passage.admitted,
            usage or passage.counted(math.ceil(len(response.body) / 4)),
            backend=backend,
            tries=(*passage.before, tried),
            status=status,
            estimated=usage is None,
        )
        headers = plain_headers(passage.admitted, backend, response, cost, offset)
        await passage.exchange.send_bytes(status, body, headers)
        return None

    async def refuse(self, exchange: Exchange, way: Way, failed: Failed) -> None:
        """Passes a backend's own refusal on, once it is booked. Raises `RouterError` where there is none to pass."""
        answer = failed.answer
        if answer is None or not 400 <= answer.status < 500:
            raise failed.error
        body = self._heads.unspoken(way.target, way.carriage.refusal(answer.status, answer.body))
        await exchange.send_bytes(answer.status, body, refusal_headers(way.target.backend, answer))


def _ceiling(call: Call, context: int) -> int:
    """Tokens of either side that a report may claim. It is the sum over all choices, and over all texts that are embedded; what
    runs at the backend fills the context window any number of times."""
    if call.unbounded is not None or not context:
        return _CEILING_WITHOUT_CONTEXT
    return max(context * call.choices, call.input_bound)


def _lost(passage: Passage, failure: UpstreamFailed) -> Failed:
    """No whole answer came: it cost nothing if nothing was sent, and nobody knows what otherwise."""
    tried = passage.tried(0, failure.code)
    passage.way.claim.failed(slow=tried.ms > SLOW_MS)
    said = Said.PERHAPS if failure.sent else Said.BROKEN
    return Failed(said, tried, RouterError(failure.code, failure.message), "upstream_refused")


def _refused(passage: Passage, response: UpstreamResponse, tried: Try, said: Said) -> Failed:
    """A whole answer that is a refusal: what it says about the backend."""
    claim = passage.way.claim
    match said:
        case Said.CALLERS:
            claim.served(tried.ms / 1000)
        case Said.NOT_THERE:
            claim.released()
        case Said.BUSY:
            claim.busy(_retry_after(response))
        case _:
            claim.failed(slow=tried.ms > SLOW_MS)
    error = RouterError("upstream_error", f"the backend answered {response.status}")
    return Failed(said, tried, error, answer=response)


def _retry_after(response: UpstreamResponse) -> float | None:
    """Seconds, if the backend says so in whole ones."""
    for name, value in response.headers:
        if name == b"retry-after" and value.isdigit():
            return float(value)
    return None
