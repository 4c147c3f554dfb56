"""Brings a stream to its caller: bytes pass as they come, the end waits for the books.

The head of the answer leaves with its first byte: a stream that breaks, or says that it broke, before it has any gave the
caller nothing, and may be asked for elsewhere.
"""

import asyncio
import time

from api.router.answer_headers import stream_headers
from api.router.departure import Departure
from api.router.errors import RouterError
from api.router.faces.face import Relay
from api.router.faces.sse import begins_with_error
from api.router.passage import LEFT, SLOW_MS, Failed, Passage
from commands.outcomes import Outcomes
from commands.ports import UpstreamResponse
from domain.errors import UpstreamFailed
from domain.facts import Try, Usage
from domain.upstream_status import Said

HELD_SECONDS = 1.0
"""How long a stream goes on behind its announced end: a report of usage may come late. Some backends keep the connection open,
and the end, which is withheld until it is booked, would not reach the caller as long as they do."""

_SAID = UpstreamFailed("the backend answered an error", sent=True)


class _Told:
    """How far the last report of usage reaches: `pieces` events had come by then."""

    __slots__ = ("pieces", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.pieces = 0

    def look(self, relay: Relay) -> None:
        if relay.usage is not self.usage:
            self.usage, self.pieces = relay.usage, relay.pieces


class Streaming:
    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._loop = asyncio.get_running_loop()

    async def bring(self, passage: Passage, response: UpstreamResponse, relay: Relay) -> Failed | None:
        """See `Forward.carry`."""
        if passage.departure is None:
            passage.departure = Departure(passage.exchange)
        passage.departure.then(response.close)
        return await self._relayed(passage, response, relay, passage.departure)

    async def _relayed(
        self, passage: Passage, response: UpstreamResponse, relay: Relay, departure: Departure
    ) -> Failed | None:
        exchange, failure = passage.exchange, None
        began, answered = passage.admitted.began, time.monotonic()
        first_token, told = None, _Told()
        over: asyncio.TimerHandle | None = None
        try:
            while data := await response.chunk():
                passed = relay.feed(data)
                told.look(relay)
                if over is None and relay.done:
                    over = self._loop.call_later(HELD_SECONDS, response.close)
                if passed:
                    if first_token is None:
                        if _of_unknown_cost(relay) and begins_with_error(passed):
                            response.close()
                            return await self._broken(passage, _SAID)
                        first_token = round((time.monotonic() - began) * 1000, 3)
                        passage.way.claim.answers()
                        await exchange.start(200, stream_headers(passage.admitted, passage.backend, response))
                    await exchange.write(passed, more=True)
        except UpstreamFailed as error:
            failure = error
            response.close()
        except asyncio.CancelledError:  # the process ends: what was seen is charged, as if the caller had left
            self._outcomes.in_background(self._left(passage, relay, told, first_token))
            raise
        finally:
            if over is not None:
                over.cancel()
        relay.end()
        told.look(relay)
        if departure.seen:
            exchange.status = exchange.status or LEFT
            await self._left(passage, relay, told, first_token)
            return None
        if _of_unknown_cost(relay):
            return await self._broken(passage, _SAID, relay.rest())
        if failure is None and first_token is None and not relay.done and relay.usage is None:
            failure = UpstreamFailed("the backend's stream ended before it began", sent=True)
        if failure is not None and not relay.done:  # else the answer was whole, however the connection ended
            return await self._broken(passage, failure)
        passage.way.claim.served(answered - passage.began)
        await self._served(passage, relay, first_token)
        if not exchange.started:
            await exchange.start(200, stream_headers(passage.admitted, passage.backend, response))
        await exchange.write(relay.rest(), more=False)
        return None

    async def _broken(self, passage: Passage, failure: UpstreamFailed, last: bytes | None = None) -> Failed | None:
        """A stream broke. Once its caller has a byte of it, it is booked, and the caller told by an event; where the backend did
        that, `last` is what is still owed of its own words."""
        exchange = passage.exchange
        if not exchange.started:
            return Failed(Said.PERHAPS, _failed_try(passage, failure), RouterError(failure.code, failure.message))
        await self._unconfirmed(passage, failure)
        if last is None:
            last = passage.face.error_event(502, failure.code, failure.message)
        await exchange.write(last, more=False)
        return None

    async def _left(self, passage: Passage, relay: Relay, told: _Told, first_token: float | None) -> None:
        """Books a stream whose caller left: what was seen is charged, unless the backend had said by then that it broke."""
        if _of_unknown_cost(relay):
            await self._unconfirmed(passage, _SAID)
        else:
            untold = 0 if relay.done or relay.usage is None else relay.pieces - told.pieces
            await self._served(passage, relay, first_token, untold, abandoned=True)

    async def _unconfirmed(self, passage: Passage, failure: UpstreamFailed) -> None:
        tries = (*passage.before, _failed_try(passage, failure))
        await self._outcomes.unconfirmed(passage.admitted, failure, backend=passage.backend, tries=tries)

    async def _served(
        self, passage: Passage, relay: Relay, first_token: float | None, untold: int = 0, *, abandoned: bool = False
    ) -> None:
        """Books a stream by its last usage report, with the events that came behind it `untold`, else by the events counted."""
        usage = relay.usage
        if usage is None:
            counted = passage.counted(relay.pieces, relay.came_in)
        else:
            counted = passage.more(usage, untold) if untold else usage
        await self._outcomes.completed(
            passage.admitted,
            counted,
            backend=passage.backend,
            tries=(*passage.before, passage.tried(200)),
            estimated=usage is None or untold > 0,
            abandoned=abandoned,
            first_token_ms=first_token,
        )


def _of_unknown_cost(relay: Relay) -> bool:
    """Whether the backend said that its answer broke, and not at its end what it used until then."""
    return relay.failed and not (relay.done and relay.usage is not None)


def _failed_try(passage: Passage, failure: UpstreamFailed) -> Try:
    tried = passage.tried(200, failure.code)
    passage.way.claim.failed(slow=tried.ms > SLOW_MS)
    return tried
