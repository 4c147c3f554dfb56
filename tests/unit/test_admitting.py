"""Which model a request is admitted for: the one asked for, or the one that its organization wants instead."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from api.router.admitting import Admitting
from api.router.errors import RouterError
from api.router.exchange import Exchange
from api.router.faces.chat import parse_chat
from api.router.ways import Way, Ways
from commands.admission import Admitted, Call, Denied, Instead
from commands.backend_choice import BackendChoice
from commands.backend_states import BackendStates
from domain.errors import GateUnavailable
from domain.scope import Caller, PublishedModel
from tests.unit.test_backend_choice import target

FALLBACKS: Mapping[str, Any] = {
    "large": {"context_window": "long", "budget_exhausted": "small", "soft_budget": "small"},
    "small": {"budget_exhausted": "tiny"},
}


def model(name: str, context: int = 1000) -> PublishedModel:
    return PublishedModel(name, (target("a"),), 50, context, (), False)


class House:
    """Models, and an admission that refuses those in `denies`; `asked` is what it was asked."""

    def __init__(self, *, models: Sequence[str] | None = None, fallbacks: Mapping[str, Any] = FALLBACKS) -> None:
        self.version = 1
        self.published = {name: model(name) for name in ("large", "small", "tiny")} | {"long": model("long", 100_000)}
        self.denies: dict[str, Exception] = {}
        self.past: set[str] = set()
        self.asked: list[tuple[str, str, Instead | None]] = []
        self.states = BackendStates()
        allowed = None if models is None else frozenset(models)
        self.caller = Caller("acme", "web", None, "key_1", 0, allowed, (), (), 402, None, None, fallbacks=fallbacks)
        self.admitting = Admitting(self, Ways(BackendChoice(self.states)), lambda: self)  # type: ignore[arg-type, return-value]

    def model(self, name: str) -> PublishedModel | None:
        return self.published.get(name)

    def past_soft(self, caller: Caller, model: PublishedModel) -> bool:
        return model.id in self.past

    async def admit(
        self,
        attempt: str,
        caller: Caller,
        call: Call,
        model: PublishedModel,
        backend: str,
        request: str | None,
        instead: Instead | None,
    ) -> Any:
        self.asked.append((attempt, model.id, instead))
        if (error := self.denies.get(model.id)) is not None:
            raise error
        return (attempt, model.id)

    async def first(self, name: str = "large", words: int = 1) -> tuple[Any, Way]:
        content = "word " * words
        asked = parse_chat(json.dumps({"model": name, "messages": [{"role": "user", "content": content}]}).encode())
        exchange = Exchange("req_1", {"headers": []}, None, None)  # type: ignore[arg-type]  # nothing is read or sent
        return await self.admitting.first(exchange, self.caller, asked)


EXHAUSTED = Denied("insufficient_quota", "exhausted")


async def test_without_a_reason_the_model_asked_for_is_admitted() -> None:
    """Fallbacks or none."""
    for house in (House(), House(fallbacks={})):
        await house.first()
        assert house.asked == [("req_1", "large", None)]


async def test_an_exhausted_budget_is_not_asked_for_again_but_the_cheaper_model_is() -> None:
    """Under the same id: nothing is held for it yet. The claim on the first backend ended."""
    house = House()
    house.denies["large"] = EXHAUSTED
    admitted, way = await house.first()
    assert (admitted, way.model.id) == (("req_1", "small"), "small")
    assert house.asked == [("req_1", "large", None), ("req_1", "small", Instead("large", "budget_exhausted"))]
    assert house.states.of(way.target).in_flight == 1


@pytest.mark.parametrize("second", [Denied("budget_busy", "busy"), Denied("model_unpriced", "no price"), EXHAUSTED])
async def test_a_fallback_that_is_refused_too_leaves_the_first_refusal(second: Denied) -> None:
    """And no chain of them is followed; no backend is held."""
    house = House()
    house.denies |= {"large": EXHAUSTED, "small": second}
    with pytest.raises(Denied) as denied:
        await house.first()
    assert denied.value is EXHAUSTED
    assert [name for _, name, _ in house.asked] == ["large", "small"]
    assert house.states.of(target("a")).in_flight == 0


@pytest.mark.parametrize("code", ["budget_busy", "rate_limit_exceeded", "unbounded_cost", "duplicate_request"])
async def test_other_refusals_have_no_fallback(code: str) -> None:
    """The money may be there in a moment, or is not what is lacking."""
    house = House()
    house.denies["large"] = Denied(code, "no")
    with pytest.raises(Denied):
        await house.first()
    assert len(house.asked) == 1


async def test_what_cannot_be_decided_is_no_refusal() -> None:
    """A closed gate closes for every model."""
    house = House()
    house.denies["large"] = GateUnavailable("closed")
    with pytest.raises(GateUnavailable):
        await house.first()
    assert len(house.asked) == 1


@pytest.mark.parametrize("gone", ["withdrawn", "not allowed", "no backend"])
async def test_a_fallback_that_is_not_to_be_had_is_none(gone: str) -> None:
    """Withdrawn, not for this key, or without a backend."""
    house = House(models=["large"] if gone == "not allowed" else None)
    house.denies["large"] = EXHAUSTED
    if gone == "withdrawn":
        del house.published["small"]
    if gone == "no backend":
        house.published["small"] = PublishedModel("small", (), 50, 1000, (), False)
    with pytest.raises(Denied):
        await house.first()


async def test_a_request_that_is_too_long_goes_to_the_longer_model_at_once() -> None:
    """The short one is not even asked; but it is, if the long one is refused."""
    house = House()
    await house.first(words=5000)
    assert house.asked == [("req_1", "long", Instead("large", "context_window"))]
    other = House()
    other.denies["long"] = EXHAUSTED
    await other.first(words=5000)
    assert [name for _, name, _ in other.asked] == ["long", "large"]


async def test_a_soft_budget_past_its_limit_degrades() -> None:
    """To the cheaper model, as long as it lasts."""
    house = House()
    house.past.add("large")
    await house.first()
    assert house.asked == [("req_1", "small", Instead("large", "soft_budget"))]
    house.past.clear()
    await house.first()
    assert house.asked[-1] == ("req_1", "large", None)


# -- later attempts


async def test_a_later_attempt_is_the_same_request_elsewhere() -> None:
    """For the model that was admitted, whatever was asked for; the Idempotency-Key was the first attempt's."""
    house = House()
    house.published["large"] = PublishedModel("large", (target("a"), target("b")), 50, 1000, (), False)
    _, way = await house.first()
    way.asked.call.once = "once"
    instead = Instead("huge", "soft_budget")
    later: Any
    later, other = await house.admitting.again("req_1.2", house.caller, admitted(way, instead), way)
    assert house.asked[-1] == ("req_1.2", "large", instead)
    assert {way.target.backend, other.target.backend} == {"a", "b"}
    assert (later, other.asked.call.once) == (("req_1.2", "large"), None)


async def test_a_longer_model_is_tried_once() -> None:
    """Not after a fallback, and not where the organization has none."""
    house = House()
    _, way = await house.first()
    _, other = await house.admitting.longer("req_1.2", house.caller, admitted(way), way)
    assert (other.model.id, house.asked[-1]) == ("long", ("req_1.2", "long", Instead("large", "context_window")))
    for refused, instead in ((house, Instead("huge", "soft_budget")), (House(fallbacks={}), None)):
        with pytest.raises(RouterError):
            await refused.admitting.longer("req_1.2", refused.caller, admitted(way, instead), way)


def admitted(way: Way, instead: Instead | None = None) -> Admitted:
    """As much of it as is looked at."""
    nothing: Any = None
    call = way.asked.call
    return Admitted("req_1", nothing, call, None, nothing, 1, nothing, 0.0, False, {}, (), instead)
