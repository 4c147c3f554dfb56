"""What a request costs, and what it can cost at most.

A price is dollars per million tokens of each class. It is kept as an integer: dollars with at most nine decimals are
nano-dollars, so a cost is an exact integer number of millionths of a nano-dollar, rounded once, up.
"""

from msgspec import Struct

from domain.facts import Usage

MILLION = 1_000_000


class Price(Struct, frozen=True, kw_only=True):
    """Nano-dollars per million tokens of each class, and nano-dollars per request. `version` is ``<model>@<n>``.

    A class without a price of its own costs what the class it is part of costs: cached and cache-written input as
    input, reasoning as output.
    """

    version: str
    input: int
    output: int
    cached_input: int
    cache_write: int
    reasoning: int
    per_request: int = 0


def cost_of(price: Price, usage: Usage) -> int:
    """Nano-dollars of a request that used `usage`, rounded up once."""
    millionths = (
        usage.input * price.input
        + usage.cached_input * price.cached_input
        + usage.cache_write * price.cache_write
        + usage.output * price.output
        + usage.reasoning * price.reasoning
    )
    return -(-millionths // MILLION) + price.per_request


def worst_base(price: Price, input_bound: int) -> int:
    """The most that the input side of a request can cost: its bound at its dearest class, and the price per request."""
    dearest = max(price.input, price.cached_input, price.cache_write)
    return -(-input_bound * dearest // MILLION) + price.per_request


def worst_unit(price: Price, choices: int = 1) -> int:
    """The most that one more token of output cap can cost, in whole nano-dollars, when `choices` answers are asked for."""
    return -(-max(price.output, price.reasoning) * choices // MILLION)
