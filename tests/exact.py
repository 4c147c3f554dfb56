"""Exact money for the tests: fractions of their own, so that a mistake in the product's arithmetic cannot agree with itself."""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import Any

NANO = 10**9
"""Nano-dollars in a dollar."""


def nano(text: Any) -> int:
    """Nano-dollars of a decimal string of dollars. Anything else (a float, more than nine places) is no exact money."""
    assert isinstance(text, str), f"money must be a decimal string, got {text!r}"
    amount = Fraction(text) * NANO
    assert amount.denominator == 1, f"money has at most nine places, got {text!r}"
    return amount.numerator


def dollars(amount: int) -> str:
    """`amount` nano-dollars, to be read by people."""
    return f"{'-' * (amount < 0)}${abs(amount) // NANO}.{abs(amount) % NANO:09d}"


def cost(price: Mapping[str, str], prompt: int, completion: int) -> int:
    """What a request costs in nano-dollars, rounded up once. `price`: ``input_usd``, ``output_usd`` per million tokens."""
    exact = prompt * Fraction(price["input_usd"]) + completion * Fraction(price["output_usd"])
    return ceil(exact * NANO / 1_000_000)
