"""Costs: exact against fractions, rounded once and up; the bounds are never below what can be charged."""

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple, replace

from domain.facts import Usage
from domain.pricing import Price, cost_of, worst_base, worst_unit

rates = st.integers(0, 200_000_000_000)
tokens = st.integers(0, 2_000_000)
prices = st.builds(
    Price,
    version=st.just("m@1"),
    input=rates,
    output=rates,
    cached_input=rates,
    cache_write=rates,
    reasoning=rates,
    per_request=st.integers(0, 10**9),
    audio_input=st.none() | rates,
    image_input=st.none() | rates,
    audio_output=st.none() | rates,
)
CLASSES = Usage.__struct_fields__
WHOLE = {"audio_input": "input", "image_input": "input", "audio_output": "output"}
"""What a class without a price costs."""
usages = st.builds(Usage, **dict.fromkeys(CLASSES, tokens))
texts = st.builds(Usage, **dict.fromkeys([name for name in CLASSES if name not in WHOLE], tokens))


def exact(price: Price, usage: Usage) -> Fraction:
    """Nano-dollars before rounding: sum of tokens times the price per million."""
    total = Fraction(price.per_request)
    for name in CLASSES:
        rate = getattr(price, name)
        total += Fraction(getattr(usage, name)) * (getattr(price, WHOLE[name]) if rate is None else rate) / 10**6
    return total


@given(usages)
def test_every_class_is_among_all_tokens(usage: Usage) -> None:
    """And in one half of them only."""
    assert usage.total == usage.all_input + usage.all_output == sum(astuple(usage))


@given(prices, usages)
def test_a_cost_is_the_exact_sum_rounded_up_once(price: Price, usage: Usage) -> None:
    """Never below the exact cost, and less than one nano-dollar above it."""
    assert cost_of(price, usage) == ceil(exact(price, usage))


@given(prices, usages, st.integers(1, 8))
def test_the_bound_covers_every_split_of_the_tokens(price: Price, usage: Usage, choices: int) -> None:
    """A hold of base plus unit per token of cap pays for any usage within the bounds, whatever its classes."""
    cap = -(-usage.all_output // choices)
    assert worst_base(price, usage.all_input) + worst_unit(price, choices) * cap >= cost_of(price, usage)


@given(prices, texts, st.integers(1, 8))
def test_the_bound_of_text_covers_every_split_of_text(price: Price, usage: Usage, choices: int) -> None:
    """What sound and pictures cost does not matter where there can be none."""
    cap = -(-usage.all_output // choices)
    base, unit = worst_base(price, usage.all_input, media=False), worst_unit(price, choices, audio=False)
    assert base + unit * cap >= cost_of(price, usage)
    assert base <= worst_base(price, usage.all_input)
    assert unit <= worst_unit(price, choices)


def test_a_third_of_a_nano_dollar_costs_one() -> None:
    """One token at 0.000333 nano-dollars is charged one nano-dollar, ten of them too: rounding is once per request."""
    price = Price(version="m@1", input=333, output=0, cached_input=0, cache_write=0, reasoning=0)
    assert cost_of(price, Usage(input=1)) == 1
    assert cost_of(price, Usage(input=10)) == 1


def test_a_free_model_costs_nothing() -> None:
    """No rounding makes something of nothing."""
    price = Price(version="m@1", input=0, output=0, cached_input=0, cache_write=0, reasoning=0)
    assert cost_of(price, Usage(input=5, output=5)) == 0


def test_known_prices() -> None:
    """2.50 and 10 dollars per million: 1,000 in and 500 out cost 0.0075 dollars; a request fee is added whole."""
    price = Price(
        version="m@1",
        input=2_500_000_000,
        output=10_000_000_000,
        cached_input=1_250_000_000,
        cache_write=2_500_000_000,
        reasoning=10_000_000_000,
        per_request=7,
    )
    assert cost_of(price, Usage(input=1000, output=500)) == 7_500_000 + 7
    assert cost_of(price, Usage(input=500, cached_input=500, output=400, reasoning=100)) == 6_875_000 + 7
    media = Usage(audio_input=100, image_input=100, audio_output=100)
    assert cost_of(price, media) == 250_000 + 250_000 + 1_000_000 + 7
    spoken = replace(price, audio_input=40 * 10**9, image_input=5 * 10**9, audio_output=80 * 10**9)
    assert cost_of(spoken, media) == 4_000_000 + 500_000 + 8_000_000 + 7
