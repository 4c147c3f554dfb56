"""The faces of the router as an attacker sees them: a path and a body that is served. A new face is a new line here."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`body` has a value of every field that the router looks into, and of some that it does not."""

    path: str
    body: dict[str, Any]


_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}

CHAT = Endpoint(
    "/v1/chat/completions",
    {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "how are you"}], "name": "ada"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {}}]},
            {"role": "tool", "tool_call_id": "c", "content": "ok"},
        ],
        "stream": False,
        "stream_options": {"include_usage": True},
        "n": 1,
        "max_tokens": 3,
        "max_completion_tokens": 3,
        "temperature": 0.5,
        "stop": ["a", "b"],
        "seed": 7,
        "tools": [_TOOL],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "logprobs": False,
        "metadata": {"a": "b"},
        "user": "u",
        "service_tier": "auto",
    },
)

ENDPOINTS = (CHAT,)
