"""Price lists: entries are added, never changed; the price at a moment is the latest in force by then."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from domain import price_list
from domain.facts import Usage
from domain.money import NANO
from domain.price_list import ListPrice, PriceEntry, PriceList, PriceListed, Rates, price_at, price_of
from domain.pricing import cost_of
from tests.unit.decider import given

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def listed(number: int, at: datetime = NOON, output: int = 4 * NANO) -> PriceListed:
    rates = Rates(input=NANO, output=output, cached_input=NANO, cache_write=NANO, reasoning=output)
    return PriceListed(model="m", entry=PriceEntry(number=number, effective_from=at, rates=rates))


def list_price(**terms: Any) -> ListPrice:
    return ListPrice(**{"model": "m", "input": NANO, "output": 4 * NANO, "at": NOON, **terms})


def test_classes_without_a_price_cost_what_they_are_part_of() -> None:
    """Cached and cache-written input as input, reasoning as output."""
    given(price_list).when(list_price()).then(listed(1))


def test_media_cost_what_is_stated_or_what_they_are_part_of() -> None:
    """Left out of an entry they are as in those of before there were such prices; stated as zero they are free."""
    entry = listed(1).entry
    spoken = replace(entry, rates=replace(entry.rates, audio_input=0, audio_output=9 * NANO))
    stated = given(price_list).when(list_price(audio_input=0, audio_output=9 * NANO))
    stated.then(PriceListed(model="m", entry=spoken))
    media = Usage(audio_input=10**6, image_input=10**6, audio_output=10**6)
    assert cost_of(price_of("m", spoken), media) == (0 + 1 + 9) * NANO
    assert cost_of(price_of("m", entry), media) == (1 + 1 + 4) * NANO
    given(price_list, listed(1)).when(list_price()).then_nothing_happened()


def test_the_same_price_again_changes_nothing() -> None:
    """Neither repeated later, nor with its own date; another source is another entry."""
    known = given(price_list, listed(1))
    known.when(list_price(at=NOON + HOUR)).then_nothing_happened()
    known.when(list_price(effective_from=NOON)).then_nothing_happened()
    entry = PriceEntry(
        number=2, effective_from=NOON, rates=listed(1).entry.rates, source="site", source_date=date(2026, 11, 1)
    )
    known.when(list_price(source="site", source_date=date(2026, 11, 1))).then(PriceListed(model="m", entry=entry))


def test_a_price_can_be_listed_ahead() -> None:
    """Until it takes effect the one before is in force, before the first there is none."""
    later = NOON + HOUR
    command = list_price(output=8 * NANO, effective_from=later)
    state: PriceList = given(price_list, listed(1)).when(command).then(listed(2, later, 8 * NANO)).state
    assert price_at(state, NOON - HOUR) is None
    now, then = price_at(state, NOON), price_at(state, later)
    assert now is not None
    assert then is not None
    assert (now.version, now.output) == ("m@1", 4 * NANO)
    assert (then.version, then.output) == ("m@2", 8 * NANO)


def test_of_equal_dates_the_one_listed_last_is_in_force() -> None:
    """A correction needs no other date."""
    state: PriceList = given(price_list, listed(1), listed(2, output=5 * NANO)).state
    corrected = price_at(state, NOON)
    assert corrected is not None
    assert corrected.version == "m@2"


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"input": -1}, "input_usd"),
        ({"reasoning": -1}, "reasoning_usd"),
        ({"per_request": 10**20}, "per_request_usd"),
        ({"audio_output": -1}, "audio_output_usd"),
        ({"model": "No Model"}, "model"),
    ],
)
def test_bad_terms_name_the_field(terms: dict[str, Any], field: str) -> None:
    """`invalid_field`."""
    given(price_list).when(list_price(**terms)).then_refused("invalid_field", field)
