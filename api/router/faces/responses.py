"""``/v1/responses``: what a request asks for, and the body that goes to an OpenAI backend.

What is kept at the backend (an earlier response, a conversation, a stored prompt) and what runs there (hosted tools, work in
the background) has no bound that we could know.
"""

from dataclasses import dataclass

import msgspec
from msgspec import Raw

from api.router.errors import RouterError, error_members
from api.router.faces.face import Carriage, Header
from api.router.faces.fields import Fields, cap_of, field_of, fields_of, first_unlisted, flag, model_of, sticky_of
from api.router.faces.openai import OpenAIFace
from api.router.faces.responses_stream import ResponsesRelay
from api.router.faces.responses_usage import usage_of_response
from api.router.faces.same_protocol import SameProtocol
from commands.admission import Call
from domain.bound import (
    CONTEXT_BOUNDED_ITEM_PARTS,
    FREE_ITEM_PARTS,
    FREE_ITEMS,
    OWN_TOOLS,
    PLAIN_TIERS,
    RESPONSES_FIELDS,
    text_bound,
)
from domain.facts import Usage

_LIST, _TEXT, _NULL = b'["n'  # the first byte of an item's content
_MAX_NAME = 200


class _Part(msgspec.Struct):
    type: str = ""


class _Item(msgspec.Struct):
    type: str | None = None
    role: Raw = Raw(b"null")
    content: Raw = Raw(b"null")
    output: Raw = Raw(b"null")
    encrypted_content: Raw = Raw(b"null")

    @property
    def kind(self) -> str:
        """Without a type it is a message if somebody says it, else a mere id of an item that is kept."""
        return self.type or ("item_reference" if bytes(self.role) == b"null" else "message")

    @property
    def kept(self) -> bool:
        """Whether it names reasoning that the backend has."""
        return self.type == "reasoning" and len(memoryview(self.encrypted_content)) <= len("null")


class _Tool(msgspec.Struct):
    type: str = "function"


_input = msgspec.json.Decoder(str | list[_Item]).decode
_parts = msgspec.json.Decoder(list[_Part]).decode
_tools = msgspec.json.Decoder(list[_Tool] | None).decode
_encode = msgspec.json.encode


class ResponsesFace(OpenAIFace):
    """See the module."""

    endpoint = "responses"

    def parse(self, body: bytes, header: Header) -> "ResponsesRequest":
        """See `Face.parse`."""
        del header
        return parse_responses(body)

    def error_event(self, status: int, code: str, message: str) -> bytes:
        """See `Face.error_event`: an ``error`` event, which also holds an error object as other streams do."""
        error = error_members(status, code, message)
        event = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": 0, "error": error}
        return b"event: error\ndata: " + _encode(event) + b"\n\n"


@dataclass(slots=True)
class ResponsesRequest:
    """`call` is what admission needs; the rest makes the body that goes to a backend."""

    call: Call
    fields: Fields
    sent: bytes

    def carriage(self, protocol: str) -> Carriage:
        """See `Asked.carriage`."""
        if protocol != "openai":
            raise RouterError(
                "unsupported_parameter", "responses are for backends that speak OpenAI's protocol", param="input"
            )
        return ResponsesCarriage(self)


class ResponsesCarriage(SameProtocol[ResponsesRequest]):
    """See the module."""

    __slots__ = ()
    path = "/responses"

    @property
    def cap_field(self) -> str:
        """See `SameProtocol`."""
        return "max_output_tokens"

    def answer(self, body: bytes, ceiling: int) -> tuple[Usage | None, bytes]:
        """See `Carriage.answer`."""
        return usage_of_response(body, ceiling), body

    def relay(self, ceiling: int) -> ResponsesRelay:
        """See `Carriage.relay`."""
        return ResponsesRelay(ceiling)


def parse_responses(body: bytes) -> ResponsesRequest:
    """See `Face.parse`."""
    fields = fields_of(body)
    model = model_of(fields)
    cap, _ = cap_of(fields, ("max_output_tokens",))
    unbounded, context = _unbounded(fields)
    call = Call(
        endpoint=ResponsesFace.endpoint,
        model=model,
        stream=bool(field_of(fields, "stream", flag, "must be true or false")),
        input_bound=text_bound(len(body), tools="tools" in fields or "text" in fields),
        estimated_input=len(body) // 4,
        cap=cap,
        unbounded=unbounded,
        context_bounded=context,
        sticky=sticky_of(fields),
    )
    return ResponsesRequest(call, fields, body)


def _unbounded(fields: Fields) -> tuple[str | None, bool]:
    """The field whose cost nothing bounds, and whether the input is bounded by the model's context window only."""
    asked = field_of(fields, "input", _input, "must be text or a list of items")
    context = False
    for item in () if asked is None or isinstance(asked, str) else asked:
        if item.kind not in FREE_ITEMS:
            return f"input item {item.kind!r:.{_MAX_NAME}}", context
        context = context or item.kept
        for content in (item.content, item.output):
            unbounded, pictured = _content(content)
            if unbounded is not None:
                return unbounded, context
            context = context or pictured
    if (name := first_unlisted(fields, RESPONSES_FIELDS)) is not None:
        return name, context
    tools = field_of(fields, "tools", _tools, "must be a list of objects")
    if tools and any(tool.type not in OWN_TOOLS for tool in tools):
        return "tools", context
    if "service_tier" in fields and bytes(fields["service_tier"]) not in PLAIN_TIERS:
        return "service_tier", context
    return None, context


def _content(content: Raw) -> tuple[str | None, bool]:
    """Of an item's content: the part that nothing bounds, and whether one is bounded by the context window only."""
    first = memoryview(content)[0]
    if first in (_TEXT, _NULL):
        return None, False
    if first != _LIST:
        raise RouterError("invalid_value", "content must be text or a list of parts", param="input")
    context = False
    for part in field_of({"input": content}, "input", _parts, "content must be text or a list of parts"):
        if part.type in CONTEXT_BOUNDED_ITEM_PARTS:
            context = True
        elif part.type not in FREE_ITEM_PARTS:
            return f"input content part {part.type!r:.{_MAX_NAME}}", context
    return None, context
