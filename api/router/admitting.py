"""Decides which model and which backend a request is admitted for, and admits it: the model that was asked for, or the one that
its organization wants instead.

A fallback is an admission of that other model: at its price, in its budgets, for a key that may use it. There is one step of it,
never a chain; where the fallback is refused too, the answer is the first refusal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from api.router.errors import RouterError
from api.router.exchange import Exchange
from api.router.faces.face import Asked
from api.router.ways import Way, Ways
from commands.admission import Admission, Admitted, Denied, Instead
from commands.backend_choice import name_of
from domain.organization import FallbackReason
from domain.scope import Caller, PublishedModel


class View(Protocol):
    """What is asked of the view of the control topic."""

    version: int

    def model(self, name: str) -> PublishedModel | None: ...


@dataclass(slots=True)
class Admitting:
    """`admission` answers the one in force: the gate may have become another one."""

    view: View
    ways: Ways
    admission: Callable[[], Admission]

    async def first(self, exchange: Exchange, caller: Caller, asked: Asked) -> tuple[Admitted, Way]:
        """Raises `Denied`, `RouterError`, and what admission raises when nothing can be decided."""
        model = self.published(caller, asked.call.model)
        if not caller.fallbacks:
            return await self._admit(exchange, caller, asked, model)
        return await self._or_instead(exchange, caller, asked, model)

    async def again(self, attempt: str, caller: Caller, admitted: Admitted, way: Way) -> tuple[Admitted, Way]:
        """The request of an attempt that came to nothing anybody knows of, as another one, for another backend."""
        model = self.published(caller, way.model.id)
        way.asked.call.once = None  # the first attempt's
        other = self.ways.first(model, way.asked, self.view.version, (*way.tried, name_of(way.target)), way.sticky)
        return await self._go(attempt, caller, other, admitted.request, admitted.instead), other

    async def longer(self, attempt: str, caller: Caller, admitted: Admitted, way: Way) -> tuple[Admitted, Way]:
        """The request of an attempt whose model has too short a context, as another one, for the model that has a longer one.
        Raises `RouterError` if there is none."""
        model = None if admitted.instead is not None else self._other(caller, way.model, "context_window")
        if model is None:
            raise RouterError("model_not_found", "there is no fallback for requests that are too long")
        way.asked.call.once = None
        other = self.ways.first(model, way.asked, self.view.version, (), way.sticky)
        instead = Instead(way.model.id, "context_window")
        return await self._go(attempt, caller, other, admitted.request, instead), other

    def published(self, caller: Caller, name: str) -> PublishedModel:
        """The model, if the caller may use it."""
        if caller.refusal is not None:
            raise RouterError(caller.refusal, caller.refusal.replace("_", " "))
        model = self.view.model(name)
        if model is None:
            raise RouterError("model_not_found", f"there is no model {name!r:.200}", param="model")
        if caller.models is not None and model.id not in caller.models:
            raise RouterError("model_not_allowed", f"this key may not use {model.id}", param="model")
        return model

    # -- inside

    async def _or_instead(
        self, exchange: Exchange, caller: Caller, asked: Asked, model: PublishedModel
    ) -> tuple[Admitted, Way]:
        """As the organization wants it: what is known beforehand decides first, a refusal by a budget then."""
        reason = self._reason(caller, asked, model)
        if reason is not None and (other := self._other(caller, model, reason)) is not None:
            try:
                return await self._admit(exchange, caller, asked, other, Instead(model.id, reason))
            except (Denied, RouterError):
                return await self._admit(exchange, caller, asked, model)
        try:
            return await self._admit(exchange, caller, asked, model)
        except Denied as denied:
            other = self._other(caller, model, "budget_exhausted") if denied.code == "insufficient_quota" else None
            if other is None:
                raise
            try:
                return await self._admit(exchange, caller, asked, other, Instead(model.id, "budget_exhausted"))
            except (Denied, RouterError):
                raise denied from None

    def _reason(self, caller: Caller, asked: Asked, model: PublishedModel) -> FallbackReason | None:
        """Why the model should not even be tried."""
        call, reasons = asked.call, caller.fallbacks.get(model.id)
        if reasons is None:
            return None
        if "context_window" in reasons and not call.context_bounded and call.estimated_input > model.context_tokens:
            return "context_window"
        if "soft_budget" in reasons and self.admission().past_soft(caller, model):
            return "soft_budget"
        return None

    def _other(self, caller: Caller, model: PublishedModel, reason: FallbackReason) -> PublishedModel | None:
        """The model that serves instead; None if there is none, or none that the caller may use."""
        name = caller.fallbacks.get(model.id, {}).get(reason)
        try:
            return None if name is None else self.published(caller, name)
        except RouterError:
            return None

    async def _admit(
        self,
        exchange: Exchange,
        caller: Caller,
        asked: Asked,
        model: PublishedModel,
        instead: Instead | None = None,
    ) -> tuple[Admitted, Way]:
        sticky = _sticky(exchange, caller, asked) if len(model.targets) > 1 else None
        way = self.ways.first(model, asked, self.view.version, (), sticky)
        return await self._go(exchange.id, caller, way, None, instead), way

    async def _go(
        self, attempt: str, caller: Caller, way: Way, request: str | None, instead: Instead | None
    ) -> Admitted:
        """Admits a request to go `way`, whose claim ends if it may not."""
        try:
            return await self.admission().admit(
                attempt, caller, way.asked.call, way.model, way.target.backend, request, instead
            )
        except BaseException:
            way.claim.released()
            raise


def _sticky(exchange: Exchange, caller: Caller, asked: Asked) -> bytes | None:
    """What requests have in common that should meet the same prompt cache: the caller's own word, within its organization."""
    key = exchange.header(b"x-tollhouse-sticky") or asked.call.sticky
    return None if key is None else b"%b/%b" % (caller.org.encode(), key)
