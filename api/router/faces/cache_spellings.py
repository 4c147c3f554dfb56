"""What a report says of caches, in the ways that backends of OpenAI's protocol spell it.

OpenAI tells it in the details of the prompt. Moonshot has ``cached_tokens`` beside the prompt, DeepSeek has
``prompt_cache_hit_tokens`` and ``prompt_cache_miss_tokens``, which add up to the prompt, and Qwen calls what was written
``cache_creation_input_tokens``. All are parts of the prompt. What cannot be true of these is passed over, and where several say
different things the dearer counts: fewer tokens read, more written.
"""

from typing import Any


def read_from_cache(prompt: int, told: int | None, *, beside: Any, hit: Any, missed: Any) -> int:
    """Tokens of a prompt that were read from a cache. `told` is OpenAI's spelling; one that cannot be true stays as it is."""
    others = [_part(beside, prompt), _hit(prompt, hit, missed)]
    said = [count for count in others if count is not None]
    if told is None:
        return min(said, default=0)
    return min(told, *said) if said and told <= prompt else told


def written_to_cache(most: int, told: int | None, other: Any) -> int:
    """Tokens of a prompt, at `most` those that were not read from one, that were written to a cache; `told` as above."""
    said = told or 0
    return said if said < 0 else max(said, _part(other, most) or 0)


def _hit(prompt: int, hit: Any, missed: Any) -> int | None:
    count = _part(hit, prompt)
    return None if count is None or (missed is not None and missed != prompt - count) else count


def _part(value: Any, whole: int) -> int | None:
    """A number of tokens that are part of a whole."""
    return value if type(value) is int and 0 <= value <= whole else None
