"""Costs: exact against fractions, rounded once and up; the bounds are never below what can be charged."""

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

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
)
usages = st.builds(Usage, input=tokens, cached_input=tokens, cache_write=tokens, output=tokens, reasoning=tokens)


def exact(price: Price, usage: Usage) -> Fraction:
    """Nano-dollars before rounding: sum of tokens times the price per million."""
    classes = ("input", "cached_input", "cache_write", "output", "reasoning")
    parts = (Fraction(getattr(usage, name)) * getattr(price, name) / 10**6 for name in classes)
    return sum(parts, Fraction(price.per_request))


@given(prices, usages)
def test_a_cost_is_the_exact_sum_rounded_up_once(price: Price, usage: Usage) -> None:
    """Never below the exact cost, and less than one nano-dollar above it."""
    assert cost_of(price, usage) == ceil(exact(price, usage))


@given(prices, usages, st.integers(1, 8))
def test_the_bound_covers_every_split_of_the_tokens(price: Price, usage: Usage, choices: int) -> None:
    """A hold of base plus unit per token of cap pays for any usage within the bounds, whatever its classes."""
    bound = usage.input + usage.cached_input + usage.cache_write
    cap = -(-(usage.output + usage.reasoning) // choices)
    assert worst_base(price, bound) + worst_unit(price, choices) * cap >= cost_of(price, usage)


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
