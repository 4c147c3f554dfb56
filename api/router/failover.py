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
from api.router.too_long import says_too_long
from api.router.ways import Way, Ways
from commands.admission import Admitted
from commands.outcomes import Outcomes
from domain.errors import TollhouseError
from domain.facts import Try
from domain.scope import Caller, PublishedModel
from domain.upstream_status import Said

MOST_ATTEMPTS = 3
"""Of one request, and so the most of its holds that can stay unconfirmed."""

Known = Callable[[str | None], Awaitable[Caller]]
"""Who the hash of a key stands for by now. Raises `TollhouseError`."""


Admit = Callable[[str, Caller, Admitted, Way], Awaitable[tuple[Admitted, Way]]]
"""One of the methods of `Later`."""


class Later(Protocol):
    """Admits the request of an attempt once more, as an attempt with an id of its own. Raises `TollhouseError`."""

    async def again(self, attempt: str, caller: Caller, admitted: Admitted, way: Way) -> tuple[Admitted, Way]:
        """For another backend."""

    async def longer(self, attempt: str, caller: Caller, admitted: Admitted, way: Way) -> tuple[Admitted, Way]:
        """For a model with a longer context."""


class View(Protocol):
    """What failing over asks of the view of the control topic."""

    version: int

    def fresh(self, monotonic: float) -> bool: ...

    def model(self, name: str) -> PublishedModel | None: ...


class Failover:
    """One per gateway."""

    def __init__(
        self, forward: Forward, outcomes: Outcomes, ways: Ways, view: View, later: Later, known: Known
    ) -> None:
        self._forward, self._outcomes, self._ways = forward, outcomes, ways
        self._view, self._later, self._known = view, later, known

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
                later = await self._next(self._later.again, attempt, admitted, way, hashed)
                if later is None:
                    raise failed.error
            elif failed.said is not Said.CALLERS and (other := self._other(admitted, way)) is not None:
                way = other
                continue
            else:
                await self._book(admitted, way, failed, tries)
                too_long = failed.answer is not None and says_too_long(failed.answer)
                later = await self._next(self._later.longer, attempt, admitted, way, hashed) if too_long else None
                if later is None:
                    await self._forward.refuse(exchange, way, failed)
                    return
            (admitted, way), tries, attempt = later, (), attempt + 1

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

    async def _next(
        self, admit: Admit, attempt: int, admitted: Admitted, way: Way, hashed: str | None
    ) -> tuple[Admitted, Way] | None:
        """The attempt after this one; None if there may be none: what it is refused for is not what the caller asked about."""
        if attempt >= MOST_ATTEMPTS:
            return None
        try:
            caller = await self._known(hashed)
            return await admit(f"{admitted.request}.{attempt + 1}", caller, admitted, way)
        except TollhouseError:
            return None

    async def _book(self, admitted: Admitted, way: Way, failed: Failed, tries: tuple[Try, ...]) -> None:
        await self._outcomes.failed(
            admitted, failed.reason, backend=way.target.backend, tries=tries, status=failed.tried.status
        )
