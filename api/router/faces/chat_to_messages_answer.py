"""What a backend that speaks Anthropic's messages answered, as a chat completion: answers, refusals, usage, and why it ended."""

import time
from typing import Any

import msgspec
from msgspec import Raw

from api.router.errors import NOT_JSON, error_body
from api.router.faces.fault import Fault, fault_of
from api.router.faces.messages_usage import usage_of_message
from domain.facts import Usage

_FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

_UNTOLD = "api_error"
"""The type of an error that has none."""


class Block(msgspec.Struct):
    """Of the content of a message; of every kind, the members that can be shown."""

    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


class StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Message(msgspec.Struct):
    id: str
    content: list[Block]
    model: str = ""
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


_message = msgspec.json.Decoder(_Message).decode


def chat_of_message(body: bytes, ceiling: int) -> tuple[Usage | None, bytes]:
    """See `Carriage.answer`. An answer that is no message reaches the caller as it came."""
    usage = usage_of_message(body, ceiling)
    try:
        message = _message(body)
    except NOT_JSON:
        return usage, body
    explained = message.stop_details.explanation if message.stop_details else None
    words = "".join(block.text for block in message.content if block.type == "text")
    calls = [_call(block) for block in message.content if block.type == "tool_use"]
    content = words or (None if calls or explained else "")  # null is for who calls or refuses
    said: dict[str, Any] = {"role": "assistant", "content": content, "refusal": explained}
    if calls:
        said["tool_calls"] = calls
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish_of(message.stop_reason)}
    doc = {
        "id": message.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": message.model,
        "choices": [choice],
        **({"usage": usage_shown(usage)} if usage else {}),
    }
    return usage, msgspec.json.encode(doc)


def finish_of(reason: str | None) -> str:
    """Why it ended, in OpenAI's words."""
    return _FINISHES.get(reason or "", "stop")


def usage_shown(usage: Usage) -> dict[str, Any]:
    """As OpenAI reports it: cached tokens are part of the prompt, reasoning of the completion."""
    prompt, completion = usage.all_input, usage.all_output
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def chat_refusal(status: int, body: bytes) -> bytes:
    """See `Carriage.refusal`."""
    fault = fault_of(body, f"the backend answered {status}")
    return error_body(status, fault.type or _UNTOLD, fault.message)


def fault_shown(fault: Fault) -> bytes:
    """An error that came instead of the rest of a stream, as an object of OpenAI's."""
    kind = fault.type or _UNTOLD
    return error_body(_STATUSES.get(kind, 500), kind, fault.message)


def input_shown(block: Block) -> str:
    """What a tool is called with, as JSON. What is no text in it (nobody has looked into it yet) is shown as such."""
    return bytes(block.input).decode(errors="replace")


def _call(block: Block) -> dict[str, Any]:
    function = {"name": block.name, "arguments": input_shown(block)}
    return {"id": block.id, "type": "function", "function": function}
