"""Money: integers of nano-dollars (1 USD = 1,000,000,000). No float ever holds an amount.

Inputs and outputs are decimal strings of dollars with at most nine decimals.
"""

import re

from domain.errors import invalid

NANO = 1_000_000_000
"""Nano-dollars in a dollar."""

MAX_LIMIT = 9_000_000 * NANO
"""The largest budget limit: a gate that computes in doubles is exact up to 2**53 nano-dollars (about 9,007,199 USD)."""

_DECIMAL = re.compile(r"(-?)(\d{1,20})(?:\.(\d{1,9}))?")


def parse_usd(text: str, field: str = "amount_usd") -> int:
    """Nano-dollars of a decimal string such as ``"12.50"`` or ``"-0.000000001"``.

    Raises `Invalid` naming `field` for anything else: exponents, NaN, more than nine decimals.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise invalid(
            field, f'must be a decimal string of dollars with at most 9 decimals, like "12.50"; got {text!r:.40}'
        )
    sign, whole, fraction = match.groups()
    nano = int(whole) * NANO + int((fraction or "").ljust(9, "0"))
    return -nano if sign else nano


def parse_limit(text: str, field: str = "limit_usd") -> int:
    """Nano-dollars of a budget limit: 0 to 9,000,000 dollars. Raises `Invalid` naming `field`."""
    nano = parse_usd(text, field)
    if not 0 <= nano <= MAX_LIMIT:
        raise invalid(field, f"must be between 0 and {MAX_LIMIT // NANO} dollars; got {text}")
    return nano


def format_usd(nano: int) -> str:
    """The exact decimal string of an amount, always with nine decimals: ``"0.001234567"``."""
    whole, fraction = divmod(abs(nano), NANO)
    return f"{'-' if nano < 0 else ''}{whole}.{fraction:09d}"
