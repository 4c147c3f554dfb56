"""The faces of the router as an attacker sees them: a path and a body that is served. A new face is a new line here."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """`body` has every field that the router looks into, and some that it does not; `headers` are the protocol's."""

    path: str
    body: dict[str, Any]
    headers: bytes = b""


OPENAI, ANTHROPIC = "m", "a"
"""Models, by the protocol of their backend."""

_FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
_TEXT = {"type": "text", "text": "ok"}
_CACHED = {"type": "ephemeral", "ttl": "5m"}

CHAT = Endpoint(
    "/v1/chat/completions",
    {
        "model": OPENAI,
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
        "tools": [{"type": "function", "function": _FUNCTION}],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "logprobs": False,
        "metadata": {"a": "b"},
        "service_tier": "auto",
    },
)

COMPLETIONS = Endpoint(
    "/v1/completions",
    {
        "model": OPENAI,
        "prompt": ["how are you", "and you"],
        "stream": False,
        "stream_options": {"include_usage": True},
        "n": 1,
        "max_tokens": 3,
        "echo": False,
        "suffix": None,
    },
)

EMBEDDINGS = Endpoint(
    "/v1/embeddings",
    {"model": OPENAI, "input": [[1, 2], [3]], "encoding_format": "float", "dimensions": 4, "user": "u"},
)

RESPONSES = Endpoint(
    "/v1/responses",
    {
        "model": OPENAI,
        "instructions": "be brief",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "how are you"}]},
            {"type": "function_call_output", "call_id": "c", "output": "ok"},
        ],
        "stream": False,
        "max_output_tokens": 3,
        "tools": [{"type": "function", **_FUNCTION}],
        "tool_choice": "auto",
        "text": {"format": {"type": "text"}},
        "reasoning": {"effort": "low"},
        "store": False,
        "service_tier": "auto",
    },
)

MESSAGES = Endpoint(
    "/v1/messages",
    {
        "model": ANTHROPIC,
        "system": [{"type": "text", "text": "be brief", "cache_control": _CACHED}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "how are you"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [_TEXT]}]},
        ],
        "max_tokens": 3,
        "stream": False,
        "temperature": 0.5,
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "cache_control": _CACHED}],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "disabled"},
        "service_tier": "auto",
    },
    b"anthropic-version: 2023-06-01\r\n",
)  # fmt: skip

COUNT = Endpoint(
    "/v1/messages/count_tokens",
    {
        "model": ANTHROPIC,
        "system": "be brief",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "how are you"}]}],
        "tools": [{"type": "custom", "name": "f", "input_schema": {"type": "object"}}],
    },
    MESSAGES.headers,
)

ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES, COUNT)
