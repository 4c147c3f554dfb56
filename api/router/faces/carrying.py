"""Reading a request that has to become one of another protocol: member by member, so that nothing is lost in silence.

What is left over once all that can be carried was taken, and says something, is refused by name.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from api.router.errors import RouterError
from api.router.faces.fields import Fields, field_of

T = TypeVar("T")

_decode = msgspec.json.Decoder().decode
_KINDS: dict[Any, str] = {str: "text", list: "a list", dict: "an object", bool: "true or false", int: "a whole number"}


def cannot(param: str, what: str) -> RouterError:
    """`what` has no place in the protocol of the backend."""
    return RouterError("unsupported_parameter", f"{what} cannot be carried to the backends of this model", param=param)


def bad(param: str, why: str) -> RouterError:
    """What the caller sent is nothing that its own protocol has."""
    return RouterError("invalid_value", why, param=param)


def says_nothing(value: Any) -> bool:
    """Null, false, and what is empty: the same as not sent."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


class Members:
    """An object of a request. `param` is the field of the body it is in and `where` the way to it; both are empty for the
    body itself, whose members are the fields."""

    __slots__ = ("_left", "param", "where")

    def __init__(self, value: Any, param: str = "", where: str = "") -> None:
        if not isinstance(value, dict):
            raise bad(param, f"{where} must be an object")
        self._left: dict[str, Any] = dict(value)
        self.param, self.where = param, where

    def take(self, name: str, kind: type[T]) -> T | None:
        """A member, None if it is absent or null. Raises `RouterError` (``invalid_value``) if it is no `kind`."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
            raise bad(self._param(name), f"{self._way(name)} must be {_KINDS.get(kind, 'of another type')}")
        return value

    def need(self, name: str, kind: type[T]) -> T:
        """A member that has to be there."""
        value = self.take(name, kind)
        if value is None:
            raise bad(self._param(name), f"{self._way(name)} is required")
        return value

    def inside(self, name: str) -> "Members":
        """A member that is an object; of no members if it is absent."""
        return Members(self.take(name, dict) or {}, self._param(name), self._way(name))

    def within(self, name: str) -> "Iterator[Members]":
        """The objects of a member that is a list."""
        for number, value in enumerate(self.take(name, list) or ()):
            yield Members(value, self._param(name), f"{self._way(name)}[{number}]")

    def one_of(self, name: str, *carried: Any) -> Any:
        """A member of which only these values can be carried."""
        value = self._left.pop(name, None)
        if value is not None and value not in carried:
            raise self.cannot(name, f" of {value!r:.50}")
        return value

    def cannot(self, name: str, more: str = "") -> RouterError:
        """A member cannot be carried."""
        return cannot(self._param(name), self._way(name) + more)

    def end(self) -> None:
        """Raises `RouterError` (``unsupported_parameter``) naming what was not taken and says something."""
        for name, value in self._left.items():
            if not says_nothing(value):
                raise self.cannot(name[:100])

    def _param(self, name: str) -> str:
        return self.param or name

    def _way(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name


def body_of(fields: Fields) -> Members:
    """The body of a request."""
    return Members({name: field_of(fields, name, _decode, "cannot be read") for name in fields})
