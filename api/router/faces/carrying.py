"""Reading a request that has to become one of another protocol: member by member, so that nothing is lost in silence.

What is left over once all that can be carried was taken, and says something, is refused by name: by its name alone, for a
refusal is on the books, and nothing that a caller says belongs there. Values that need no change (schemas, inputs of tools,
numbers) are never decoded: they go as their bytes.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from api.router.errors import NOT_JSON, RouterError
from api.router.faces.fields import says_nothing

T = TypeVar("T")

_OBJECT, _TEXT = b'{"'  # the first byte of a value
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {
    str: msgspec.json.Decoder(str),
    bool: msgspec.json.Decoder(bool),
    int: msgspec.json.Decoder(int),
    float: msgspec.json.Decoder(float),
    list: msgspec.json.Decoder(list[Raw]),
    dict: msgspec.json.Decoder(dict[str, Raw]),
}
_WANTED = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def cannot(param: str, what: str) -> RouterError:
    """`what` has no place in the protocol of the backend."""
    return RouterError("unsupported_parameter", f"{what} cannot be carried to the backends of this model", param=param)


def bad(param: str, why: str) -> RouterError:
    """What the caller sent is nothing that its own protocol has."""
    return RouterError("invalid_value", why, param=param)


def is_text(value: Raw) -> bool:
    return memoryview(value)[0] == _TEXT


def is_object(value: Raw) -> bool:
    return memoryview(value)[0] == _OBJECT


class Members:
    """An object of a request. `param` is the field of the body it is in and `where` the way to it; both are empty for the
    body itself, whose members are the fields."""

    __slots__ = ("_left", "param", "where")

    def __init__(self, left: dict[str, Raw], param: str = "", where: str = "") -> None:
        self._left = dict(left)
        self.param, self.where = param, where

    def raw(self, name: str) -> Raw | None:
        """A member as its bytes, None if it is absent or null."""
        value = self._left.pop(name, None)
        return None if value is None or bytes(memoryview(value)[:5]) == b"null" else value

    def take(self, name: str, kind: type[T]) -> T | None:
        """A member, None if it is absent or null. Raises `RouterError` (``invalid_value``) if it is no `kind`."""
        value = self.raw(name)
        return None if value is None else self._decoded(value, name, kind)

    def need(self, name: str, kind: type[T]) -> T:
        """A member that has to be there."""
        value = self.take(name, kind)
        if value is None:
            raise bad(self._param(name), f"{self._way(name)} is required")
        return value

    def opaque(self, name: str) -> Raw | None:
        """A member that is an object and goes as its bytes."""
        value = self.raw(name)
        if value is not None and not is_object(value):
            raise bad(self._param(name), f"{self._way(name)} must be an object")
        return value

    def inside(self, name: str) -> "Members":
        """A member that is an object; of no members if it is absent."""
        return Members(self.take(name, dict) or {}, self._param(name), self._way(name))

    def within(self, name: str) -> "Iterator[Members]":
        """The objects of a member that is a list."""
        for number, value in enumerate(self.take(name, list) or ()):
            item = f"{name}[{number}]"
            yield Members(self._decoded(value, item, dict), self._param(name), self._way(item))

    def one_of(self, name: str, *carried: str) -> str | None:
        """A member of which only these values can be carried, None if it is absent."""
        value = self.raw(name)
        if value is None:
            return None
        found = self._decoded(value, name, str) if is_text(value) else bytes(value).decode("latin-1")
        if found not in carried:
            raise self.cannot(name, " of this value")
        return found

    def cannot(self, name: str, more: str = "") -> RouterError:
        """A member cannot be carried."""
        return cannot(self._param(name), self._way(name) + more)

    def end(self) -> None:
        """Raises `RouterError` (``unsupported_parameter``) naming what was not taken and says something: what is null, false or
        empty is the same as not sent."""
        for name, value in self._left.items():
            if bytes(memoryview(value)[:3]) != b'""' and not says_nothing(self._left, name):
                raise self.cannot(name[:100])

    def _decoded(self, value: Raw, name: str, kind: type[T]) -> T:
        try:
            found: T = _DECODERS[kind].decode(value)
        except NOT_JSON as error:
            raise bad(self._param(name), f"{self._way(name)} must be {_WANTED[kind]}") from error
        return found

    def _param(self, name: str) -> str:
        return self.param or name.partition("[")[0]

    def _way(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name
