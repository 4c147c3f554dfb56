"""What a chat completion request asks for, and the body that goes upstream.

The body is parsed once, into raw fields: only the few that decide about money are looked into, and all others reach the
backend as the caller's bytes. `domain.bound` says what makes a cost unbounded.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from api.router.errors import NOT_JSON, RouterError
from commands.admission import Call
from domain.bound import CONTEXT_BOUNDED_PARTS, FREE_PARTS, PLAIN_FIELDS, PLAIN_TIERS, text_bound

MAX_CHOICES = 128
MAX_OUTPUT = 10_000_000
_MAX_NAME = 200

_LIST, _TEXT, _NULL = b'["n'  # the first byte of a message's content

_fields = msgspec.json.Decoder(dict[str, Raw]).decode


class _Part(msgspec.Struct):
    type: str = ""


class _Message(msgspec.Struct):
    role: str
    content: Raw = Raw(b"null")
    audio: Raw = Raw(b"null")


class _Tool(msgspec.Struct):
    type: str = "function"


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_messages = msgspec.json.Decoder(list[_Message]).decode
_parts = msgspec.json.Decoder(list[_Part]).decode
_tools = msgspec.json.Decoder(list[_Tool] | None).decode
_stream_options = msgspec.json.Decoder(_StreamOptions | None).decode
_integer = msgspec.json.Decoder(int | None).decode
_flag = msgspec.json.Decoder(bool | None).decode
_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode


@dataclass(slots=True)
class ChatRequest:
    """`call` is what admission needs; `wants_usage`: the caller asked for usage on the stream; the rest makes `outgoing`."""

    call: Call
    wants_usage: bool
    fields: dict[str, Raw]
    cap_field: str


def parse_chat(body: bytes) -> ChatRequest:
    """Raises `RouterError` (``invalid_json``, ``missing_model``, ``invalid_value``) naming the field."""
    try:
        fields = _fields(body)
    except msgspec.ValidationError as error:
        raise RouterError("invalid_value", "the body must be a JSON object") from error
    except NOT_JSON as error:
        raise RouterError("invalid_json", f"the body is not JSON: {error}") from error
    if "model" not in fields:
        raise RouterError("missing_model", "the field model is required", param="model")
    model = _field(fields, "model", _text, "must be a string")
    if not model:
        raise RouterError("missing_model", "the field model is empty", param="model")
    stream = bool(_field(fields, "stream", _flag, "must be true or false"))
    options = _field(fields, "stream_options", _stream_options, "must be an object")
    cap, cap_field = _cap(fields)
    choices = _field(fields, "n", _integer, "must be a whole number")
    if choices is not None and not 1 <= choices <= MAX_CHOICES:
        raise RouterError("invalid_value", f"must be between 1 and {MAX_CHOICES}", param="n")
    unbounded, context = _unbounded(fields)
    call = Call(
        endpoint="chat.completions",
        model=model,
        stream=stream,
        input_bound=text_bound(len(body)),
        estimated_input=len(body) // 4,
        cap=cap,
        choices=choices or 1,
        unbounded=unbounded,
        context_bounded=context,
    )
    return ChatRequest(call, bool(options and options.include_usage), fields, cap_field)


def outgoing(request: ChatRequest, body: bytes, upstream_model: str, grant: int) -> bytes:
    """The body for the backend: its name of the model, the granted output cap, and usage asked for on streams."""
    call, changed = request.call, {}
    if upstream_model != call.model:
        changed["model"] = Raw(_encode(upstream_model))
    if call.cap != grant:
        changed[request.cap_field] = Raw(b"%d" % grant)
    if call.stream and not request.wants_usage:
        options = msgspec.json.decode(request.fields["stream_options"]) if "stream_options" in request.fields else None
        changed["stream_options"] = Raw(_encode({**(options or {}), "include_usage": True}))
    return _encode({**request.fields, **changed}) if changed else body


def _field(fields: dict[str, Raw], name: str, decode: Any, wanted: str) -> Any:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decode(raw)
    except NOT_JSON as error:
        raise RouterError("invalid_value", f"{name} {wanted}: {error}", param=name) from error


def _cap(fields: dict[str, Raw]) -> tuple[int | None, str]:
    """The larger of the two output caps: which one a backend heeds is not known."""
    largest, field = None, "max_completion_tokens"
    for name in ("max_completion_tokens", "max_tokens"):
        value = _field(fields, name, _integer, "must be a whole number")
        if value is None:
            continue
        if not 1 <= value <= MAX_OUTPUT:
            raise RouterError("invalid_value", f"{name} must be between 1 and {MAX_OUTPUT}", param=name)
        if largest is None or value > largest:
            largest, field = value, name
    return largest, field


def _unbounded(fields: dict[str, Raw]) -> tuple[str | None, bool]:
    """The field whose cost nothing bounds, and whether the input is bounded by the model's context window only."""
    messages = _field(fields, "messages", _messages, "must be a list of objects with a role")
    if not messages:
        raise RouterError("invalid_value", "messages must hold at least one message", param="messages")
    context = False
    for message in messages:
        first = memoryview(message.content)[0]  # a copy of the text would cost more than everything else here
        if first == _LIST:
            for part in _field(
                {"messages": message.content}, "messages", _parts, "content must be text or a list of parts"
            ):
                if part.type in CONTEXT_BOUNDED_PARTS:
                    context = True
                elif part.type not in FREE_PARTS:
                    return f"messages content part {part.type!r:.{_MAX_NAME}}", context
        elif first not in (_TEXT, _NULL):
            raise RouterError("invalid_value", "content must be text or a list of parts", param="messages")
        context = context or bytes(message.audio) != b"null"
    for name in fields.keys() - PLAIN_FIELDS:
        if bytes(fields[name]) not in (b"null", b"false", b"[]", b"{}"):
            return name[:_MAX_NAME], context
    tools = _field(fields, "tools", _tools, "must be a list of objects")
    if tools and any(tool.type != "function" for tool in tools):
        return "tools", context
    if "service_tier" in fields and bytes(fields["service_tier"]) not in PLAIN_TIERS:
        return "service_tier", context
    return None, context
