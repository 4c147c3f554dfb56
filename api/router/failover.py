"""Sends an admitted request on until a backend answers it, and books what came of every try.

Nothing is tried again once the caller got a byte of an answer. A try that surely cost nothing is repeated at another backend
under the same hold: it and the next one are on one fact. One of unknown outcome is booked as an unconfirmed attempt, with its
whole hold, and the next is an attempt of its own, ``<request>.2``, admitted anew: it may be refused. `docs/protocol.md` says why.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from api.router.errors import RouterError
from api.router.exchange import Exchange
from api.router.faces.face import Face
from api.router.forward import Forward
from api.router.passage import Failed
from api.router.ways import Way, Ways
from commands.admission import Admitted
from commands.outcomes import Outcomes
from domain.errors import TollhouseError
from domain.facts import Try
from domain.scope import PublishedModel
from domain.upstream_status import Said

MOST_ATTEMPTS = 3
"""Of one request, and so the most of its holds that can stay unconfirmed."""

Anew = Callable[[str, Admitted, Way, str | None], Awaitable[tuple[Admitted, Way]]]
"""Admits the request of an attempt once more, for another backend, as the attempt with this id, for whom the hash of the key
stands for by now. Raises `TollhouseError`."""


class View(Protocol):
    """What failing over asks of the view of the control topic."""

    version: int

    def fresh(self, monotonic: float) -> bool: ...

    def model(self, name: str) -> PublishedModel | None: ...


class Failover:
    """One per gateway."""

    def __init__(self, forward: Forward, outcomes: Outcomes, ways: Ways, view: View, anew: Anew) -> None:
        self._forward, self._outcomes, self._ways, self._view, self._anew = forward, outcomes, ways, view, anew

    async def carry(
        self, exchange: Exchange, admitted: Admitted, face: Face, way: Way, hashed: str | None = None
    ) -> None:
        """Raises `RouterError` (``upstream_error``, ``upstream_timeout``, ``no_backend``) once the failure is on the books."""
        tries: tuple[Try, ...] = ()
        attempt = 1
        while True:
            if way.version != self._view.version and not self._there(way):
                way = await self._elsewhere(admitted, way, tries)
            failed = await self._forward.carry(exchange, admitted, face, way, tries)
            if failed is None:
                return
            tries = (*tries, failed.tried)
            if failed.said is Said.PERHAPS:
                await self._outcomes.unconfirmed(admitted, failed.error, backend=way.target.backend, tries=tries)
                attempt += 1
                admitted, way = await self._again(attempt, admitted, way, failed, hashed)
                tries = ()
            elif failed.said is not Said.CALLERS and (other := self._other(admitted, way)) is not None:
                way = other
            else:
                await self._book(admitted, way, failed, tries)
                await self._forward.refuse(exchange, way, failed)
                return

    def _there(self, way: Way) -> bool:
        """Whether the backend may still be asked: it may have been killed since it was chosen."""
        model = self._view.model(way.model.id)
        return model is not None and any(target.backend == way.target.backend for target in model.targets)

    async def _elsewhere(self, admitted: Admitted, way: Way, tries: tuple[Try, ...]) -> Way:
        way.claim.released()
        other = self._other(admitted, way)
        if other is None:
            await self._outcomes.failed(admitted, "not_dispatched", backend=way.target.backend, tries=tries)
            raise RouterError("no_backend", f"no backend of {way.model.id} can take requests")
        return other

    def _other(self, admitted: Admitted, way: Way) -> Way | None:
        """To a backend that the admission names, as the view has it now."""
        if len(way.model.targets) == 1:
            return None
        now = time.monotonic()
        model = self._view.model(way.model.id)
        if model is None or not self._view.fresh(now) or now >= admitted.began + way.model.patience:
            return None
        return self._ways.other(way, model, admitted.backends, self._view.version)

    async def _again(
        self, attempt: int, admitted: Admitted, way: Way, failed: Failed, hashed: str | None
    ) -> tuple[Admitted, Way]:
        if attempt > MOST_ATTEMPTS:
            raise failed.error
        try:
            return await self._anew(f"{admitted.request}.{attempt}", admitted, way, hashed)
        except TollhouseError:  # what this one is refused for is not what the caller asked about
            raise failed.error from None

    async def _book(self, admitted: Admitted, way: Way, failed: Failed, tries: tuple[Try, ...]) -> None:
        await self._outcomes.failed(
            admitted, failed.reason, backend=way.target.backend, tries=tries, status=failed.tried.status
        )
