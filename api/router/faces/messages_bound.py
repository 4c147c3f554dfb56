"""What of a messages request decides about its cost: `domain.bound` says which of it has a bound."""

import re
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from api.router.errors import RouterError
from api.router.faces.fields import Fields, field_of, first_unlisted
from domain.bound import (
    CONTEXT_BOUNDED_BLOCKS,
    CONTEXT_BOUNDED_TOOLS,
    FREE_BLOCKS,
    MESSAGES_FIELDS,
    PLAIN_TOOLS,
)

PICTURE_TOKENS = 1600
"""About what one image or page costs."""

_MAX_NAME = 200
_LIST, _TEXT, _NULL = b'["n'  # the first byte of a content
_BLOCKS = "content must be text or a list of blocks"
_VERSIONED = re.compile(r"(.*?)_\d{8}")


class _Cache(msgspec.Struct):
    ttl: str | None = None


class _Source(msgspec.Struct):
    data: Raw = Raw(b"")
    content: Raw = Raw(b"null")


class _Block(msgspec.Struct):
    type: str = ""
    content: Raw = Raw(b"null")
    source: _Source | str | None = None
    cache_control: _Cache | None = None


class _Message(msgspec.Struct):
    role: str
    content: Raw


class _Tool(msgspec.Struct):
    type: str | None = None
    cache_control: _Cache | None = None


_messages = msgspec.json.Decoder(list[_Message]).decode
_blocks = msgspec.json.Decoder(list[_Block]).decode
_tools = msgspec.json.Decoder(list[_Tool] | None).decode
_cache = msgspec.json.Decoder(_Cache | None).decode


@dataclass(slots=True)
class Look:
    """`unbounded`: the first field whose cost nothing bounds; `context_bounded`: only the model's context window bounds the
    input; `encoded`: bytes that are no text, `pictured`: about how many tokens they are."""

    unbounded: str | None = None
    context_bounded: bool = False
    encoded: int = 0
    pictured: int = 0

    def no_bound(self, name: str) -> None:
        self.unbounded = self.unbounded or name[:_MAX_NAME]

    def cache(self, control: _Cache | None) -> None:
        """The listed price of a cache write is that of five minutes."""
        if control is not None and control.ttl not in (None, "5m"):
            self.no_bound("cache_control")

    def content(self, content: Raw, field: str) -> None:
        """Of a message, a tool's result or the system. Raises `RouterError` (``invalid_value``)."""
        first = memoryview(content)[0]  # a copy of the text would cost more than everything else here
        if first in (_TEXT, _NULL):
            return
        if first != _LIST:
            raise RouterError("invalid_value", _BLOCKS, param=field)
        for block in field_of({field: content}, field, _blocks, _BLOCKS):
            self.block(block, field)

    def block(self, block: _Block, field: str) -> None:
        self.cache(block.cache_control)
        if block.type in CONTEXT_BOUNDED_BLOCKS:
            self.context_bounded = True
            self.pictured += PICTURE_TOKENS
            if isinstance(block.source, _Source):
                self.encoded += len(memoryview(block.source.data))
                self.content(block.source.content, field)
        elif block.type not in FREE_BLOCKS:
            self.no_bound(f"{field} content block {block.type!r}")
        elif block.type in ("tool_result", "search_result"):
            self.content(block.content, field)

    def tool(self, tool: _Tool) -> None:
        self.cache(tool.cache_control)
        named = _VERSIONED.fullmatch(tool.type or "custom")
        kind = named[1] if named else tool.type or "custom"
        if kind in CONTEXT_BOUNDED_TOOLS:
            self.context_bounded = True
        elif kind not in PLAIN_TOOLS:
            self.no_bound("tools")


def looked(fields: Fields) -> Look:
    """Looks at everything that costs. Raises `RouterError` (``invalid_value``) naming the field."""
    seen = Look()
    messages = field_of(fields, "messages", _messages, "must be a list of objects with a role and a content")
    if not messages:
        raise RouterError("invalid_value", "messages must hold at least one message", param="messages")
    for message in messages:
        seen.content(message.content, "messages")
    if "system" in fields:
        seen.content(fields["system"], "system")
    for tool in field_of(fields, "tools", _tools, "must be a list of objects") or ():
        seen.tool(tool)
    seen.cache(field_of(fields, "cache_control", _cache, "must be an object"))
    if (name := first_unlisted(fields, MESSAGES_FIELDS)) is not None:
        seen.no_bound(name)
    if "speed" in fields and bytes(fields["speed"]) not in (b"null", b'"standard"'):
        seen.no_bound("speed")
    return seen
