"""Rows as one block of ClickHouse's Native format: column by column, as the engine holds them, so that it parses nothing.

A block is the number of columns and of rows, then of each column its name, its type and its values: integers and floats
little-endian, strings as their length (LEB128) and UTF-8. The engine casts to the types of the table's own columns.
Format: https://clickhouse.com/docs/interfaces/formats/Native
"""

import sys
from array import array
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import Struct, structs

Values = Sequence[Any]


def native_block(rows: Sequence[Struct]) -> bytes:
    """`rows` are structs of one type; fields are `str`, `bytes` (of UTF-8), `int` (of 64 bits), `float`, `bool` and `datetime`
    (with its zone, from 1970 until 2100)."""
    columns = _columns(type(rows[0]))
    parts = [_length(len(columns)), _length(len(rows))]
    for column, values in zip(columns, zip(*map(structs.astuple, rows), strict=True), strict=True):
        parts += (column.head, column.encoded(values))
    return b"".join(parts)


class _Column(NamedTuple):
    """`head`: its name and type; `encoded` makes the bytes of its values."""

    head: bytes
    encoded: Callable[[Values], bytes]


@lru_cache
def _columns(shape: type[Struct]) -> Sequence[_Column]:
    found = []
    for field in structs.fields(shape):
        name, encoded = _KINDS.get(field.type, ("String", _texts))
        found.append(_Column(_strings([field.encode_name.encode(), name.encode()]), encoded))
    return found


def _texts(values: Sequence[str]) -> bytes:
    """Few different ones are made once each."""
    some = values[:_SAMPLE]
    if len(set(some)) > len(some) // 2:
        return _strings([value.encode() for value in values])
    return b"".join(map(_Made().__getitem__, values))


class _Made(dict[str, bytes]):
    """A text's bytes with their length."""

    def __missing__(self, text: str) -> bytes:
        made = self[text] = _strings([text.encode()])
        return made


def _strings(values: Sequence[bytes]) -> bytes:
    parts = [b""] * (2 * len(values))
    parts[0::2] = [_SHORT[len(value)] if len(value) < _SHORTS else _length(len(value)) for value in values]
    parts[1::2] = values
    return b"".join(parts)


def _length(number: int) -> bytes:
    parts = []
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*parts, number))


def _numbers(code: str) -> Callable[[Values], bytes]:
    def encoded(values: Values) -> bytes:
        made = array(code, values)
        if sys.byteorder == "big":
            made.byteswap()
        return made.tobytes()

    return encoded


def _micros(values: Sequence[datetime]) -> bytes:
    return _integers([int(moment.timestamp()) * 1_000_000 + moment.microsecond for moment in values])


_SAMPLE = 64
_SHORTS = 4096
_SHORT = [_length(number) for number in range(_SHORTS)]
_integers = _numbers("q")
_KINDS: dict[Any, tuple[str, Callable[[Values], bytes]]] = {
    int: ("Int64", _integers),
    float: ("Float64", _numbers("d")),
    bool: ("Bool", bytes),
    bytes: ("String", _strings),
    datetime: ("DateTime64(6, 'UTC')", _micros),
}
