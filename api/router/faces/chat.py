"""``/v1/chat/completions``: what a request asks for, and the body that goes to an OpenAI backend.

The body is parsed once, into raw fields: only the few that decide about money are looked into, and all others reach the
backend as the caller's bytes. `domain.bound` says what makes a cost unbounded.
"""

from dataclasses import dataclass

import msgspec
from msgspec import Raw

from api.router.errors import RouterError
from api.router.faces.chat_stream import ChunkRelay
from api.router.faces.chat_to_messages import ChatToMessages
from api.router.faces.chat_usage import usage_of_answer
from api.router.faces.face import Carriage, Header
from api.router.faces.fields import (
    CHAT_CAPS,
    Fields,
    cap_of,
    field_of,
    fields_of,
    first_unlisted,
    flag,
    integer,
    model_of,
    says_nothing,
    sticky_of,
)
from api.router.faces.openai import OpenAIFace
from api.router.faces.same_protocol import SameProtocol
from commands.admission import Call
from domain.bound import CONTEXT_BOUNDED_PARTS, FREE_PARTS, MODALITIES, OWN_TOOLS, PLAIN_FIELDS, PLAIN_TIERS, text_bound
from domain.facts import Usage

MAX_CHOICES = 128
_EXPLAINED = ("tools", "functions", "response_format")
_MAX_NAME = 200

_LIST, _TEXT, _NULL = b'["n'  # the first byte of a message's content


class _Part(msgspec.Struct):
    type: str = ""


class _Message(msgspec.Struct):
    role: str
    content: Raw = Raw(b"null")
    audio: Raw = Raw(b"null")


class _Tool(msgspec.Struct):
    type: str = "function"


_messages = msgspec.json.Decoder(list[_Message]).decode
_parts = msgspec.json.Decoder(list[_Part]).decode
_tools = msgspec.json.Decoder(list[_Tool] | None).decode
_names = msgspec.json.Decoder(list[str] | None).decode
_options = msgspec.json.Decoder(dict[str, Raw] | None).decode
_encode = msgspec.json.encode


class ChatFace(OpenAIFace):
    """See the module."""

    endpoint = "chat.completions"

    def parse(self, body: bytes, header: Header) -> "ChatRequest":
        """See `Face.parse`."""
        del header
        return parse_chat(body)


@dataclass(slots=True)
class ChatRequest:
    """`call` is what admission needs; `wants_usage`: the caller asked for usage on the stream; the rest makes the body that
    goes to a backend."""

    call: Call
    wants_usage: bool
    fields: Fields
    cap_field: str
    sent: bytes

    def carriage(self, protocol: str) -> Carriage:
        """See `Asked.carriage`."""
        if protocol == "anthropic":
            return ChatToMessages(self.fields, self.wants_usage)
        return ChatCarriage(self)


class ChatCarriage(SameProtocol[ChatRequest]):
    """See the module."""

    __slots__ = ()
    path = "/chat/completions"

    @property
    def cap_field(self) -> str:
        """See `SameProtocol`."""
        return self._asked.cap_field

    def body(self, upstream_model: str, grant: int, cap_field: str | None = None) -> bytes:
        """See `Carriage.body`."""
        if cap_field is None:
            return super().body(upstream_model, grant)
        fields = self._asked.fields | self.changed(upstream_model, grant)
        return _encode({name: value for name, value in fields.items() if name not in CHAT_CAPS} | {cap_field: grant})

    def changed(self, upstream_model: str, grant: int) -> Fields:
        """See `SameProtocol`. On streams usage is asked for."""
        asked = self._asked
        changed = super().changed(upstream_model, grant)
        if asked.call.stream and not asked.wants_usage:
            options = _options(asked.fields.get("stream_options", b"null")) or {}
            changed["stream_options"] = Raw(_encode({**options, "include_usage": True}))
        return changed

    def answer(self, body: bytes, ceiling: int) -> tuple[Usage | None, bytes]:
        """See `Carriage.answer`."""
        return usage_of_answer(body, ceiling), body

    def relay(self, ceiling: int) -> ChunkRelay:
        """See `Carriage.relay`."""
        return ChunkRelay(self._asked.wants_usage, ceiling)


def wants_usage(fields: Fields) -> bool:
    """Whether the caller asked for usage on a stream."""
    return bool(field_of(fields, "stream_options", _asks_for_usage, "must be an object"))


def _asks_for_usage(options: Raw) -> bool | None:
    asked: bool | None = flag((_options(options) or {}).get("include_usage", b"null"))
    return asked


def parse_chat(body: bytes) -> ChatRequest:
    """See `Face.parse`."""
    fields = fields_of(body)
    model = model_of(fields)
    stream = bool(field_of(fields, "stream", flag, "must be true or false"))
    cap, cap_field = cap_of(fields, CHAT_CAPS)
    choices = field_of(fields, "n", integer, "must be a whole number")
    if choices is not None and not 1 <= choices <= MAX_CHOICES:
        raise RouterError("invalid_value", f"must be between 1 and {MAX_CHOICES}", param="n")
    unbounded, context = _unbounded(fields)
    modes = field_of(fields, "modalities", _names, "must be a list of strings") or ()
    if unbounded is None and not MODALITIES.issuperset(modes):
        unbounded = "modalities"
    call = Call(
        endpoint=ChatFace.endpoint,
        model=model,
        stream=stream,
        input_bound=text_bound(len(body), tools=not fields.keys().isdisjoint(_EXPLAINED)),
        estimated_input=len(body) // 4,
        cap=cap,
        choices=choices or 1,
        spoken="audio" in modes or not says_nothing(fields, "audio"),
        unbounded=unbounded,
        context_bounded=context,
        sticky=sticky_of(fields),
    )
    return ChatRequest(call, wants_usage(fields), fields, cap_field, body)


def _unbounded(fields: Fields) -> tuple[str | None, bool]:
    """The field whose cost nothing bounds, and whether the input is bounded by the model's context window only."""
    messages = field_of(fields, "messages", _messages, "must be a list of objects with a role")
    if not messages:
        raise RouterError("invalid_value", "messages must hold at least one message", param="messages")
    context = False
    for message in messages:
        first = memoryview(message.content)[0]  # a copy of the text would cost more than everything else here
        if first == _LIST:
            for part in field_of(
                {"messages": message.content}, "messages", _parts, "content must be text or a list of parts"
            ):
                if part.type in CONTEXT_BOUNDED_PARTS:
                    context = True
                elif part.type not in FREE_PARTS:
                    return f"messages content part {part.type!r:.{_MAX_NAME}}", context
        elif first not in (_TEXT, _NULL):
            raise RouterError("invalid_value", "content must be text or a list of parts", param="messages")
        context = context or bytes(message.audio) != b"null"
    if (name := first_unlisted(fields, PLAIN_FIELDS)) is not None:
        return name, context
    tools = field_of(fields, "tools", _tools, "must be a list of objects")
    if tools and any(tool.type not in OWN_TOOLS for tool in tools):
        return "tools", context
    if "service_tier" in fields and bytes(fields["service_tier"]) not in PLAIN_TIERS:
        return "service_tier", context
    return None, context
