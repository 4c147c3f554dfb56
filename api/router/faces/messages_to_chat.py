"""Anthropic's messages brought to a backend that speaks OpenAI's chat completions.

`messages_to_chat_turns` carries the conversation, this module all that goes with it; `docs/translation.md` is the table of
both. What has no place there is refused before anything is held. A mark for a cache of five minutes needs none: these
backends keep caches by themselves, and say what was read from them.
"""

from typing import Any

import msgspec
from msgspec import Raw

from api.router.faces.carrying import Members, bad, cannot
from api.router.faces.fields import CHAT_CAPS, Fields
from api.router.faces.messages_to_chat_answer import message_of_chat, message_refusal
from api.router.faces.messages_to_chat_stream import MessagesOfChat
from api.router.faces.messages_to_chat_turns import cache, conversation
from commands.admission import Call
from domain.facts import Usage

_TIERS = {"auto": "auto", "standard_only": "default"}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}

_encode = msgspec.json.encode


class MessagesToChat:
    """See `Carriage`. Raises `RouterError` (``unsupported_parameter``, ``invalid_value``) when it is made."""

    __slots__ = ("_call", "_rest")
    path = "/chat/completions"
    headers = b""

    def __init__(self, call: Call, fields: Fields, odd_betas: bool) -> None:
        if odd_betas:
            raise cannot("anthropic-beta", "a beta of Anthropic's")
        if call.cap == 0:
            raise cannot("max_tokens", "filling a cache (max_tokens of 0)")
        self._call, self._rest = call, _encode(chat_doc(fields))[1:]

    def body(self, upstream_model: str, grant: int, cap_field: str | None = None) -> bytes:
        """See `Carriage.body`. On streams usage is asked for."""
        named = _encode(upstream_model), _encode(cap_field or CHAT_CAPS[0]), grant
        return b'{"model":%b,%b:%d,' % named + self._rest

    def answer(self, body: bytes, ceiling: int) -> tuple[Usage | None, bytes]:
        """See `Carriage.answer`."""
        return message_of_chat(body, ceiling, self._call)

    def refusal(self, status: int, body: bytes) -> bytes:
        """See `Carriage.refusal`."""
        return message_refusal(status, body)

    def relay(self, ceiling: int) -> MessagesOfChat:
        """See `Carriage.relay`."""
        return MessagesOfChat(self._call, ceiling)


def chat_doc(fields: Fields) -> dict[str, Any]:
    """The body that goes to the backend, but for its model and its cap."""
    body = Members(fields)
    for name in ("model", "max_tokens"):
        body.raw(name)
    cache(body)
    doc: dict[str, Any] = {"messages": conversation(body)}
    if body.take("stream", bool):
        doc |= {"stream": True, "stream_options": {"include_usage": True}}
    for name, theirs in (("temperature", "temperature"), ("top_p", "top_p"), ("stop_sequences", "stop")):
        if (value := body.raw(name)) is not None and bytes(value) != b"[]":
            doc[theirs] = value
    _tools(body, doc)
    _output(body, doc)
    _about(body, doc)
    body.end()
    return doc


def _tools(body: Members, doc: dict[str, Any]) -> None:
    tools = [_tool(tool) for tool in body.within("tools")]
    choice = body.inside("tool_choice")
    kind = choice.take("type", str)
    if not tools:
        if kind not in (None, "auto", "none"):
            raise bad("tool_choice", "tool_choice wants a call, and there are no tools")
        return
    doc["tools"] = tools
    if kind == "tool":
        doc["tool_choice"] = {"type": "function", "function": {"name": choice.need("name", str)}}
    elif kind is not None:
        if kind not in _CHOICES:
            raise bad("tool_choice", "tool_choice.type must be auto, any, tool or none")
        doc["tool_choice"] = _CHOICES[kind]
    if choice.take("disable_parallel_tool_use", bool):
        doc["parallel_tool_calls"] = False
    choice.end()


def _tool(tool: Members) -> dict[str, Any]:
    tool.one_of("type", "custom")
    cache(tool)
    function: dict[str, Any] = {"name": tool.need("name", str)}
    if (description := tool.take("description", str)) is not None:
        function["description"] = description
    function["parameters"] = tool.need("input_schema", dict)
    if tool.take("strict", bool):
        function["strict"] = True
    tool.take("eager_input_streaming", bool)  # these backends always stream it as it comes
    if tool.take("allowed_callers", list) not in (None, [], [Raw(b'"direct"')]):
        raise tool.cannot("allowed_callers")
    tool.end()
    return {"type": "function", "function": function}


def _output(body: Members, doc: dict[str, Any]) -> None:
    config = body.inside("output_config")
    if effort := config.one_of("effort", *_EFFORTS):
        doc["reasoning_effort"] = effort
    wanted = config.inside("format")
    if wanted.one_of("type", "json_schema"):
        schema = {"name": "answer", "schema": wanted.need("schema", dict), "strict": True}
        doc["response_format"] = {"type": "json_schema", "json_schema": schema}
    wanted.end()
    config.end()
    thinking = body.inside(
        "thinking"
    )  # whether to think is the model's own choice there, and its thoughts are not shown
    thinking.one_of("type", "adaptive", "disabled")
    thinking.one_of("display", "omitted")
    thinking.end()


def _about(body: Members, doc: dict[str, Any]) -> None:
    """Who asks, and how it is served."""
    metadata = body.inside("metadata")
    if user := metadata.take("user_id", str):
        doc["user"] = user
    metadata.end()
    if tier := body.one_of("service_tier", *_TIERS):
        doc["service_tier"] = _TIERS[tier]
    body.one_of("speed", "standard")
