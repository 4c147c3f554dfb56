"""Published prices of known models, from the package genai-prices as it is installed: nothing is fetched.

A price is offered only if it can be charged exactly: one rate per token class. Rates that depend on the size of a request or
on the time of day are refused, never averaged. `source_date` is the latest date, not after today, that the catalogue gives for
the model's rates: when they were verified or took effect; without one, the latest such date of the whole catalogue, whose rates
all held then.
"""

import re
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from importlib.metadata import version

from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, StartDateConstraint, TimeOfDateConstraint
from msgspec import Struct

from domain.errors import NotFound, invalid

_DATE = re.compile(r"20\d\d-[01]\d-[0-3]\d")
_CLASSES = {
    "input_usd": "input_mtok",
    "output_usd": "output_mtok",
    "cached_input_usd": "cache_read_mtok",
    "cache_write_usd": "cache_write_mtok",
    "reasoning_usd": "output_reasoning_mtok",
    "audio_input_usd": "input_audio_mtok",
    "image_input_usd": "input_image_mtok",
    "audio_output_usd": "output_audio_mtok",
}
_NO_CLASSES = ("output_image_mtok", "input_video_mtok", "output_video_mtok", "output_citation_mtok")
"""Rates of tokens that are no class here: they would be charged at another's."""


class CatalogPrice(Struct, frozen=True, kw_only=True):
    """Dollars per million tokens of each class as decimal strings, `per_request_usd` per request. `name` is the catalogue's."""

    name: str
    provider: str
    input_usd: str
    output_usd: str
    cached_input_usd: str | None = None
    cache_write_usd: str | None = None
    reasoning_usd: str | None = None
    audio_input_usd: str | None = None
    image_input_usd: str | None = None
    audio_output_usd: str | None = None
    per_request_usd: str | None = None
    source: str
    source_date: date


def find_price(reference: str, backend_url: str | None, now: datetime) -> CatalogPrice:
    """The price in force at `now` of the model a provider calls `reference`; the backend's URL tells the provider.

    Raises `NotFound` for a model the catalogue lacks, `Invalid` for one whose price cannot be charged exactly.
    """
    provider, model = _find(reference, backend_url)
    _refuse_hours(model, now, reference)
    prices = model.get_prices(now)
    if getattr(prices, "input_mtok", None) is None:
        raise NotFound(f"the catalogue has no price per input token for {reference}")
    for key in _NO_CLASSES:
        if getattr(prices, key, None) is not None:
            raise invalid("model", f"{reference} has a rate {key} of its own: set its price by hand")
    rates = {field: _rate(prices, key, reference) for field, key in _CLASSES.items()}
    thousand = getattr(prices, "requests_kcount", None)
    return CatalogPrice(
        name=model.id,
        provider=provider.id,
        input_usd=rates.pop("input_usd") or "0",
        output_usd=rates.pop("output_usd") or "0",
        **rates,
        per_request_usd=None if thousand is None else _decimal(thousand / 1000, reference),
        source=f"genai-prices {version('genai-prices')} ({provider.id}/{model.id})",
        source_date=_date(model, now.date()) or _catalogue_date(now.date()),
    )


def _find(reference: str, backend_url: str | None) -> tuple[Provider, ModelInfo]:
    snapshot = data_snapshot.get_snapshot()
    for url in dict.fromkeys((backend_url, None)):
        try:
            return snapshot.find_provider_model(reference, None, None, url)
        except LookupError:
            continue  # a backend of one's own is no known provider: the name alone may tell
    raise NotFound(f"the catalogue has no model {reference}")


def _refuse_hours(model: ModelInfo, now: datetime, reference: str) -> None:
    """Later entries of the catalogue win over earlier ones: those that depend on the hour count down to the one in force."""
    if isinstance(model.prices, ModelPrice):
        return
    for price in reversed(model.prices):
        if isinstance(price.constraint, TimeOfDateConstraint):
            raise invalid("model", f"{reference} has rates that depend on the time of day: set its price by hand")
        if price.constraint is None or price.constraint.active(now):
            return


def _rate(prices: ModelPrice, key: str, reference: str) -> str | None:
    value = getattr(prices, key, None)
    if value is None:
        return None
    if not isinstance(value, Decimal):
        raise invalid("model", f"{reference} has rates that depend on the size of a request: set its price by hand")
    return _decimal(value, reference)


def _decimal(value: Decimal, reference: str) -> str:
    if value != round(value, 9):
        raise invalid("model", f"{reference} has a rate with more than 9 decimals: set its price by hand")
    return format(value.normalize(), "f")


def _date(model: ModelInfo, today: date) -> date | None:
    found = [date.fromisoformat(text) for text in _DATE.findall(model.price_comments or "")]
    if not isinstance(model.prices, ModelPrice):
        found += [
            price.constraint.start_date for price in model.prices if isinstance(price.constraint, StartDateConstraint)
        ]
    return max((day for day in found if day <= today), default=None)


@cache
def _catalogue_date(today: date) -> date:
    dates = (_date(model, today) for provider in data_snapshot.get_snapshot().providers for model in provider.models)
    return max(day for day in dates if day is not None)
