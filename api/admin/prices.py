"""`/prices`: dollars per million tokens of each published model, with their history."""

from datetime import date

from fastapi import APIRouter, Response
from msgspec import UNSET
from pydantic import AwareDatetime, BaseModel

from api.admin.call import Caller, Paged
from api.admin.shapes import Body, Limit, Resource
from commands.handling import Changes
from commands.ports import Entry
from commands.rules import change
from domain.ids import PLATFORM
from domain.inputs import model_id
from domain.money import format_usd
from domain.price_list import KIND, ListPrice, PriceEntry, PriceList

router = APIRouter(prefix="/admin/v1/prices", tags=["prices"])


class PriceBody(Body):
    """Dollars per million tokens. A class left out costs what the class it is part of costs."""

    input_usd: Limit
    output_usd: Limit
    cached_input_usd: Limit | None = None
    cache_write_usd: Limit | None = None
    reasoning_usd: Limit | None = None
    audio_input_usd: Limit | None = None
    image_input_usd: Limit | None = None
    audio_output_usd: Limit | None = None
    per_request_usd: Limit = 0
    effective_from: AwareDatetime | None = None
    source: str | None = None
    source_date: date | None = None


class PriceOut(BaseModel):
    """One entry; `price` is the version that requests name."""

    price: str
    currency: str
    input_usd: str
    output_usd: str
    cached_input_usd: str
    cache_write_usd: str
    reasoning_usd: str
    audio_input_usd: str
    image_input_usd: str
    audio_output_usd: str
    per_request_usd: str
    effective_from: AwareDatetime
    source: str | None
    source_date: date | None


class PriceListOut(Resource, PriceOut):
    """The entry listed last, and all entries in the order they were listed."""

    history: tuple[PriceOut, ...]


def document(entry: Entry) -> PriceListOut:
    state: PriceList = entry.state
    history = tuple(_entry(state.model, item) for item in state.history)
    return PriceListOut(id=entry.id, version=entry.version, history=history, **history[-1].model_dump())


@router.put("/{model}", response_model=PriceListOut)
async def put(model: str, body: PriceBody, call: Caller) -> Response:
    call.platform()
    id = model_id(model)

    def effect(changes: Changes) -> None:
        command = ListPrice(
            model=id,
            input=body.input_usd,
            output=body.output_usd,
            cached_input=body.cached_input_usd,
            cache_write=body.cache_write_usd,
            reasoning=body.reasoning_usd,
            audio_input=body.audio_input_usd,
            image_input=body.image_input_usd,
            audio_output=body.audio_output_usd,
            per_request=body.per_request_usd,
            effective_from=body.effective_from,
            source=body.source,
            source_date=body.source_date,
            at=changes.clock(),
        )
        change(changes, PLATFORM, KIND, id, command)

    return await call.change(PLATFORM, KIND, id, effect, document)


@router.get("")
async def list_all(call: Caller, page: Paged) -> Response:
    call.platform()
    return await call.page(PLATFORM, KIND, page, document)


@router.get("/{model}", response_model=PriceListOut)
async def show(model: str, call: Caller) -> Response:
    call.platform()
    return await call.show(PLATFORM, KIND, model, document)


def _entry(model: str, entry: PriceEntry) -> PriceOut:
    rates = entry.rates
    return PriceOut(
        price=f"{model}@{entry.number}",
        currency=entry.currency,
        input_usd=format_usd(rates.input),
        output_usd=format_usd(rates.output),
        cached_input_usd=format_usd(rates.cached_input),
        cache_write_usd=format_usd(rates.cache_write),
        reasoning_usd=format_usd(rates.reasoning),
        audio_input_usd=format_usd(rates.input if rates.audio_input is UNSET else rates.audio_input),
        image_input_usd=format_usd(rates.input if rates.image_input is UNSET else rates.image_input),
        audio_output_usd=format_usd(rates.output if rates.audio_output is UNSET else rates.audio_output),
        per_request_usd=format_usd(rates.per_request),
        effective_from=entry.effective_from,
        source=entry.source,
        source_date=entry.source_date,
    )
