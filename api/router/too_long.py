"""Whether a backend refused a request because it is longer than the context of its model: each says so in its own words."""

from commands.ports import UpstreamResponse

_STATUSES = frozenset({400, 413, 422})
_WORDS = (b"context_length_exceeded", b"maximum context length", b"prompt is too long", b"context window")


def says_too_long(answer: UpstreamResponse) -> bool:
    """By the code or the words of OpenAI, of Anthropic, and of the servers that speak like them."""
    return answer.status in _STATUSES and any(words in answer.body for words in _WORDS)
