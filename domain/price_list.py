"""Price lists: what each published model costs, and has cost. Nothing is ever overwritten; every entry has a number."""

from datetime import date, datetime

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from domain.errors import invalid
from domain.inputs import model_id
from domain.money import MAX_LIMIT, NANO
from domain.pricing import Price

KIND = "price"


class Rates(Struct, frozen=True, kw_only=True):
    """Nano-dollars per million tokens of each class, and nano-dollars per request. Of the classes below, one left out costs what
    the class it is part of costs."""

    input: int
    output: int
    cached_input: int
    cache_write: int
    reasoning: int
    per_request: int = 0
    audio_input: int | UnsetType = UNSET
    image_input: int | UnsetType = UNSET
    audio_output: int | UnsetType = UNSET


class PriceEntry(Struct, frozen=True, kw_only=True):
    """One price. `source` and `source_date` say where it was taken from and when it held there."""

    number: int
    effective_from: datetime
    rates: Rates
    currency: str = "USD"
    source: str | None = None
    source_date: date | None = None


# ---------------------------------------------------------------- events: stored format


class PriceListed(Struct, frozen=True, kw_only=True):
    model: str
    entry: PriceEntry


Event = PriceListed

EVENTS: tuple[type[Struct], ...] = (PriceListed,)


# ---------------------------------------------------------------- state


class PriceList(Struct, frozen=True, kw_only=True):
    """All prices of one model, in the order they were listed."""

    model: str
    history: tuple[PriceEntry, ...]

    @property
    def removed(self) -> bool:
        """Never: what was charged stays explained."""
        return False


def evolve(state: PriceList | None, event: Event) -> PriceList | None:
    """The state after `event`."""
    if state is None:
        return PriceList(model=event.model, history=(event.entry,))
    return replace(state, history=(*state.history, event.entry))


def entry_at(state: PriceList, moment: datetime) -> PriceEntry | None:
    """The entry in force at `moment`: the latest to take effect by then; of equals the one listed last."""
    begun = [entry for entry in state.history if entry.effective_from <= moment]
    return max(begun, key=lambda entry: (entry.effective_from, entry.number), default=None)


def price_at(state: PriceList, moment: datetime) -> Price | None:
    """The price in force at `moment`, None before the first; its version is ``<model>@<number>``."""
    return in_force(timeline(state), moment)


Timeline = tuple[tuple[datetime, Price], ...]
"""When each price takes effect, the last first."""


def timeline(state: PriceList) -> Timeline:
    """A price list, to be asked often (`in_force`)."""
    order = sorted(state.history, key=lambda entry: (entry.effective_from, entry.number), reverse=True)
    return tuple((entry.effective_from, price_of(state.model, entry)) for entry in order)


def in_force(prices: Timeline, moment: datetime) -> Price | None:
    """The price at `moment`: the latest to take effect by then; of equals the one listed last. None before the first."""
    for begins, price in prices:
        if begins <= moment:
            return price
    return None


def price_of(model: str, entry: PriceEntry) -> Price:
    """An entry as the price that facts name."""
    rates = entry.rates
    return Price(
        version=f"{model}@{entry.number}",
        input=rates.input,
        output=rates.output,
        cached_input=rates.cached_input,
        cache_write=rates.cache_write,
        reasoning=rates.reasoning,
        per_request=rates.per_request,
        audio_input=_stated(rates.audio_input),
        image_input=_stated(rates.image_input),
        audio_output=_stated(rates.audio_output),
    )


def _stated(rate: int | UnsetType) -> int | None:
    return None if rate is UNSET else rate


# ---------------------------------------------------------------- commands and decisions


class ListPrice(Struct, frozen=True, kw_only=True):
    """`effective_from` None: from `at` on. A class left None costs what the class it is part of costs."""

    model: str
    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    per_request: int = 0
    audio_input: int | None = None
    image_input: int | None = None
    audio_output: int | None = None
    effective_from: datetime | None = None
    source: str | None = None
    source_date: date | None = None
    at: datetime


Command = ListPrice


def decide(command: Command, state: PriceList | None) -> list[Event]:
    """A new entry; none if the same price is in force at that time already. Raises `Invalid`."""
    entry = PriceEntry(
        number=1 if state is None else len(state.history) + 1,
        effective_from=command.effective_from or command.at,
        rates=_rates(command),
        source=command.source,
        source_date=command.source_date,
    )
    known = None if state is None else entry_at(state, entry.effective_from)
    moved = command.effective_from is not None and known is not None and known.effective_from != entry.effective_from
    if known is not None and not moved and _terms(known) == _terms(entry):
        return []
    return [PriceListed(model=model_id(command.model), entry=entry)]


def _terms(entry: PriceEntry) -> tuple[Rates, str | None, date | None]:
    return entry.rates, entry.source, entry.source_date


def _rates(command: ListPrice) -> Rates:
    rates = Rates(
        input=command.input,
        output=command.output,
        cached_input=command.input if command.cached_input is None else command.cached_input,
        cache_write=command.input if command.cache_write is None else command.cache_write,
        reasoning=command.output if command.reasoning is None else command.reasoning,
        per_request=command.per_request,
        audio_input=UNSET if command.audio_input is None else command.audio_input,
        image_input=UNSET if command.image_input is None else command.image_input,
        audio_output=UNSET if command.audio_output is None else command.audio_output,
    )
    for name in rates.__struct_fields__:
        rate = getattr(rates, name)
        if rate is not UNSET and not 0 <= rate <= MAX_LIMIT:
            raise invalid(f"{name}_usd", f"must be between 0 and {MAX_LIMIT // NANO} dollars")
    return rates
