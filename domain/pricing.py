"""What a request costs, and what it can cost at most.

A price is dollars per million tokens of each class. It is kept as an integer: dollars with at most nine decimals are
nano-dollars, so a cost is an exact integer number of millionths of a nano-dollar, rounded once, up.
"""

from msgspec import Struct

from domain.facts import Usage

MILLION = 1_000_000


class Price(Struct, frozen=True, kw_only=True):
    """Nano-dollars per million tokens of each class, and nano-dollars per request. `version` is ``<model>@<n>``.

    A class without a price of its own costs what the class it is part of costs: cached, cache-written, audio and image
    input as input, reasoning and audio as output.
    """

    version: str
    input: int
    output: int
    cached_input: int
    cache_write: int
    reasoning: int
    per_request: int = 0
    audio_input: int | None = None
    image_input: int | None = None
    audio_output: int | None = None


def cost_of(price: Price, usage: Usage) -> int:
    """Nano-dollars of a request that used `usage`, rounded up once."""
    millionths = (
        usage.input * price.input
        + usage.cached_input * price.cached_input
        + usage.cache_write * price.cache_write
        + usage.output * price.output
        + usage.reasoning * price.reasoning
    )
    if usage.audio_input:
        millionths += usage.audio_input * _rate(price.audio_input, price.input)
    if usage.image_input:
        millionths += usage.image_input * _rate(price.image_input, price.input)
    if usage.audio_output:
        millionths += usage.audio_output * _rate(price.audio_output, price.output)
    return -(-millionths // MILLION) + price.per_request


def worst_base(price: Price, input_bound: int, *, media: bool = True) -> int:
    """The most that the input side of a request can cost: its bound at its dearest class, and the price per request.
    `media`: there may be more in it than text."""
    dearest = max(price.input, price.cached_input, price.cache_write)
    if media:
        dearest = max(dearest, price.audio_input or 0, price.image_input or 0)
    return -(-input_bound * dearest // MILLION) + price.per_request


def worst_unit(price: Price, choices: int = 1, *, audio: bool = True) -> int:
    """The most that one more token of output cap can cost, in whole nano-dollars, when `choices` answers are asked for.
    `audio`: the answer may be spoken."""
    dearest = max(price.output, price.reasoning)
    if audio:
        dearest = max(dearest, price.audio_output or 0)
    return -(-dearest * choices // MILLION)


def _rate(own: int | None, whole: int) -> int:
    """Of a class, or of the class that it is part of."""
    return whole if own is None else own
