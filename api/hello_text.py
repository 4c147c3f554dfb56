"""The size and the words of things at Hello: a token is a whitespace-separated word, both ways."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

MOST = 1_000_000
"""The most tokens that one choice of an answer can have."""

TokenCap = Annotated[int, Meta(ge=1, le=MOST)]

_WORD = b"ok "
_READY = _WORD * 4096


class Part(Struct, frozen=True):
    """A part of a message's content; only text has words."""

    text: str = ""


Content = str | list[Part] | None
Input = str | list[str | int | list[int]]
"""Text, several texts, tokens, or several lists of tokens."""


def words(content: str | Sequence[Part | str | int | list[int]] | None) -> int:
    """How many words `content` has; a number in it is a token by itself."""
    if isinstance(content, str):
        return len(content.split())
    total = 0
    for item in content or ():
        match item:
            case str():
                total += len(item.split())
            case Part():
                total += len(item.text.split())
            case int():
                total += 1
            case _:
                total += len(item)
    return total


def text_of(tokens: int) -> bytes:
    """Text of exactly that many tokens, safe inside a JSON string."""
    return _READY[: tokens * len(_WORD)] if tokens <= 4096 else _WORD * tokens


@lru_cache(maxsize=1024)
def encoded(text: str) -> bytes:
    """`text` as JSON."""
    return msgspec.json.encode(text)
