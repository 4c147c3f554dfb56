"""Money: decimal strings in and out, integers of nano-dollars between, no float anywhere."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Invalid
from domain.money import MAX_LIMIT, NANO, format_usd, parse_limit, parse_usd


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("5", 5 * NANO),
        ("12.50", 12_500_000_000),
        ("0.000000001", 1),
        ("-0.000000001", -1),
        ("-3.1", -3_100_000_000),
        ("007", 7 * NANO),
        ("123456.123456789", 123_456_123_456_789),
    ],
)
def test_decimal_strings_are_exact(text: str, nano: int) -> None:
    """Each decimal is read to the nano-dollar."""
    assert parse_usd(text) == nano


BAD = ["", "-", ".5", "5.", "+5", "1e30", "1E3", "NaN", "inf", "Infinity", "0.0000000001", "1,5", " 1", "1 ", "1\n"]


@pytest.mark.parametrize("text", [*BAD, "0x10", "--1", "1_000", "9" * 21])
def test_anything_else_is_refused_by_field(text: str) -> None:
    """Exponents, NaN, separators and a tenth decimal are `Invalid`, naming the field."""
    with pytest.raises(Invalid) as raised:
        parse_usd(text, "limit_usd")
    assert raised.value.errors[0].field == "limit_usd"


@pytest.mark.parametrize("text", ["-1", "-0.000000001", "9000000.000000001", "1e30", "NaN", "0.0000000001"])
def test_a_limit_outside_zero_to_nine_million_is_refused(text: str) -> None:
    """A limit has to stay exact in a gate that computes in doubles."""
    with pytest.raises(Invalid) as raised:
        parse_limit(text)
    assert raised.value.errors[0].field == "limit_usd"


def test_the_bounds_of_a_limit_are_allowed() -> None:
    """0 and 9,000,000 dollars are limits, and below 2**53 nano-dollars."""
    assert parse_limit("0") == 0
    assert parse_limit("9000000") == MAX_LIMIT < 2**53


@given(st.integers(-(10**28), 10**28))
def test_what_is_written_reads_back(nano: int) -> None:
    """format_usd and parse_usd are inverse, and the text is the exact decimal."""
    text = format_usd(nano)
    assert parse_usd(text) == nano
    assert Decimal(text).scaleb(9) == nano
    assert len(text.split(".")[1]) == 9


def test_a_negative_amount_below_a_dollar_keeps_its_sign() -> None:
    """-1 nano-dollar is not 0.000000001."""
    assert format_usd(-1) == "-0.000000001"
