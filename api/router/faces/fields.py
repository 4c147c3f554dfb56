"""Fields of a request's body, as raw JSON: each face decodes the few it looks into, and the error names the field."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from api.router.errors import NOT_JSON, RouterError
from domain.bound import ASKED_WHEN_EMPTY

MAX_OUTPUT = 10_000_000
"""Tokens of an output cap, at most."""

CHAT_CAPS = ("max_completion_tokens", "max_tokens")
"""Names of the output cap of a chat completion, the usual one first."""

Fields = dict[str, Raw]

Texts = str | list[str | int | list[int]]
"""Text, several texts, tokens, or several lists of tokens."""

texts = msgspec.json.Decoder(Texts | None).decode
integer = msgspec.json.Decoder(int | None).decode
flag = msgspec.json.Decoder(bool | None).decode
text = msgspec.json.Decoder(str).decode

_MAX_NAME = 200
_NOTHING = (b"null", b"false", b"[]")
_EMPTY = b"{}"

_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def fields_of(body: bytes) -> Fields:
    """The members of a body. Raises `RouterError` (``invalid_json``, ``invalid_value``)."""
    try:
        return _fields(body)
    except msgspec.ValidationError as error:
        raise RouterError("invalid_value", "the body must be a JSON object") from error
    except NOT_JSON as error:
        raise RouterError("invalid_json", f"the body is not JSON: {error}") from error


class _Name:
    """A name that is like no other, so that one which is there twice is counted twice."""

    __slots__ = ()


_names = msgspec.json.Decoder(dict[_Name, Raw], dec_hook=lambda kind, _: kind()).decode


def said_twice(body: bytes, fields: Fields) -> bool:
    """Whether a body has more members than names. Of two `fields_of` takes the last; another reader may take the first."""
    return len(_names(body)) != len(fields)


def field_of(fields: Mapping[str, Raw], name: str, decode: Callable[[Raw], Any], wanted: str) -> Any:
    """A member decoded, None if it is absent. Raises `RouterError` (``invalid_value``): ``<name> <wanted>: <why>``."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decode(raw)
    except NOT_JSON as error:
        raise RouterError("invalid_value", f"{name} {wanted}: {error}", param=name) from error


def model_of(fields: Mapping[str, Raw]) -> str:
    """The model asked for. Raises `RouterError` (``missing_model``, ``invalid_value``), also where there is a second one for
    backends that do not tell capital letters (all of Go's)."""
    if "model" not in fields:
        raise RouterError("missing_model", "the field model is required", param="model")
    model: str = field_of(fields, "model", text, "must be a string")
    if not model:
        raise RouterError("missing_model", "the field model is empty", param="model")
    if any(name.lower() == "model" for name in fields.keys() - {"model"}):
        raise RouterError("invalid_value", "the field model is there in two spellings", param="model")
    return model


def sticky_of(fields: Mapping[str, Raw]) -> bytes | None:
    """What the caller calls the prompt cache that the request should meet, as JSON."""
    raw = fields.get("prompt_cache_key")
    return None if raw is None or bytes(raw) == b"null" else bytes(raw)


def cap_of(fields: Mapping[str, Raw], names: Sequence[str]) -> tuple[int | None, str]:
    """The largest of the output caps stated (which one a backend heeds is not known), and the field that states it: the
    first of `names` where none does. Raises `RouterError` (``invalid_value``)."""
    largest, field = None, names[0]
    for name in names:
        value = field_of(fields, name, integer, "must be a whole number")
        if value is None:
            continue
        if not 1 <= value <= MAX_OUTPUT:
            raise RouterError("invalid_value", f"{name} must be between 1 and {MAX_OUTPUT}", param=name)
        if largest is None or value > largest:
            largest, field = value, name
    return largest, field


def says_nothing(fields: Mapping[str, Raw], name: str) -> bool:
    """Whether a field is absent, or as good as that."""
    if name not in fields or bytes(fields[name]) in _NOTHING:
        return True
    return bytes(fields[name]) == _EMPTY and name not in ASKED_WHEN_EMPTY


def first_unlisted(fields: Mapping[str, Raw], listed: frozenset[str]) -> str | None:
    """The first field that says something and is not on a list."""
    for name in fields.keys() - listed:
        if not says_nothing(fields, name):
            return name[:_MAX_NAME]
    return None
