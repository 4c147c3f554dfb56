"""``/v1/messages``: what a request asks for, and the body that goes to an Anthropic backend.

The body is parsed once, into raw fields: only what decides about money is looked into (`messages_bound`), and all else
reaches the backend as the caller's bytes.
"""

import re
from dataclasses import dataclass

import msgspec

from api.router.errors import RouterError
from api.router.faces.anthropic import AnthropicFace
from api.router.faces.face import Carriage, Header
from api.router.faces.fields import MAX_OUTPUT, Fields, field_of, fields_of, flag, integer, model_of
from api.router.faces.messages_bound import Look, looked
from api.router.faces.messages_stream import MessagesRelay
from api.router.faces.messages_to_chat import MessagesToChat
from api.router.faces.messages_usage import usage_of_message
from api.router.faces.same_protocol import SameProtocol
from commands.admission import Call
from domain.bound import PLAIN_BETAS, text_bound
from domain.facts import Usage

VERSION = b"2023-06-01"
"""Of the protocol, where the caller states none."""

_DATED = re.compile(r"\d{4}-\d\d-\d\d")
_BETA = re.compile(r"([a-z][a-z0-9-]{0,80}?)(?:-\d{4}-?\d\d-?\d\d)?")
_encode = msgspec.json.encode


class MessagesFace(AnthropicFace):
    """See the module."""

    endpoint = "messages"

    def parse(self, body: bytes, header: Header) -> "MessagesRequest":
        """See `Face.parse`."""
        return parse_messages(body, header)


@dataclass(slots=True)
class MessagesRequest:
    """`call` is what admission needs; the rest makes the body that goes to a backend. `betas`: as the caller named them."""

    call: Call
    fields: Fields
    sent: bytes
    version: bytes
    betas: tuple[str, ...]

    def carriage(self, protocol: str) -> Carriage:
        """See `Asked.carriage`."""
        if protocol == "openai":
            return MessagesToChat(self.call, self.fields, not all(map(plain_beta, self.betas)))
        return MessagesCarriage(self)


class MessagesCarriage(SameProtocol[MessagesRequest]):
    """See the module."""

    __slots__ = ("headers",)
    path = "/v1/messages"

    def __init__(self, asked: MessagesRequest) -> None:
        super().__init__(asked)
        self.headers = protocol_headers(asked.version, asked.betas)

    @property
    def cap_field(self) -> str:
        """See `SameProtocol`. The caller stated the cap, and what it stated is granted or refused."""
        return "max_tokens"

    def answer(self, body: bytes, ceiling: int) -> tuple[Usage | None, bytes]:
        """See `Carriage.answer`."""
        return usage_of_message(body, ceiling), body

    def relay(self, ceiling: int) -> MessagesRelay:
        """See `Carriage.relay`."""
        return MessagesRelay(ceiling)


def protocol_headers(version: bytes = VERSION, betas: tuple[str, ...] = ()) -> bytes:
    """The header lines of a request to an Anthropic backend, but for the credential."""
    lines = b"anthropic-version: " + version + b"\r\n"
    return lines + b"anthropic-beta: " + ",".join(betas).encode() + b"\r\n" if betas else lines


def parse_messages(body: bytes, header: Header) -> MessagesRequest:
    """See `Face.parse`."""
    fields = fields_of(body)
    model = model_of(fields)
    stream = bool(field_of(fields, "stream", flag, "must be true or false"))
    cap = field_of(fields, "max_tokens", integer, "must be a whole number")
    if cap is None or not 0 <= cap <= MAX_OUTPUT:  # none at all fills a cache
        raise RouterError("invalid_value", f"max_tokens must be between 0 and {MAX_OUTPUT}", param="max_tokens")
    seen = looked(fields)
    version, betas = version_of(header), betas_of(header)
    call = Call(
        endpoint=MessagesFace.endpoint,
        model=model,
        stream=stream,
        input_bound=text_bound(len(body), tools="tools" in fields or "output_config" in fields),
        estimated_input=estimated_input(body, seen),
        cap=cap,
        unbounded=seen.unbounded or _unbounded_beta(betas),
        context_bounded=seen.context_bounded,
    )
    return MessagesRequest(call, fields, body, version, betas)


def estimated_input(body: bytes, seen: Look) -> int:
    """About how many tokens the input has: at least one."""
    return max(1, (len(body) - seen.encoded) // 4 + seen.pictured)


def version_of(header: Header) -> bytes:
    """Of the protocol, as the caller states it. Raises `RouterError` (``invalid_value``)."""
    version = header(b"anthropic-version")
    if version is None:
        return VERSION
    if not _DATED.fullmatch(version.decode("latin-1")):
        raise RouterError("invalid_value", "anthropic-version must be a date", param="anthropic-version")
    return version


def betas_of(header: Header) -> tuple[str, ...]:
    """The betas that the caller names. Raises `RouterError` (``invalid_value``)."""
    names = [name.strip() for name in (header(b"anthropic-beta") or b"").decode("latin-1").split(",")]
    betas = tuple(name for name in names if name)
    if not all(_BETA.fullmatch(name) for name in betas):
        raise RouterError("invalid_value", "anthropic-beta must be names", param="anthropic-beta")
    return betas


def plain_beta(name: str) -> bool:
    """Whether a beta changes no price and no bound."""
    named = _BETA.fullmatch(name)
    return named is not None and named[1] in PLAIN_BETAS


def _unbounded_beta(betas: tuple[str, ...]) -> str | None:
    return None if all(map(plain_beta, betas)) else "anthropic-beta"
