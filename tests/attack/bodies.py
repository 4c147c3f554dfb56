"""Bodies that are nearly right: each field of one that is served, taken away or made into what it must not be."""

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

Place = tuple[str | int, ...]

DEEP = 20_000


def wrong_values() -> list[bytes]:
    """JSON, and what is nearly JSON, in place of a value."""
    values = [
        "null", "true", "false", "0", "-0", "-1", "1", "1.5", "1e400", "-1e400", "NaN", "Infinity", "0x10", "01", "1e-400",
        str(2**31), str(2**53 + 1), str(2**63), str(2**64), str(-(2**63) - 1), "9" * 400, "1" + "0" * 5000,
        '""', '" "', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"' + "a" * 70_000 + '"', '"\\x"', '"\n"', '"a', "'a'",
        "[]", "[null]", "[[]]", "{}", '{"":""}', '{"type":null}', '{"type":"' + "t" * 5000 + '"}', '{"a":1,"a":2}', "[1,]", "{,}",
        "", "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "[" * DEEP,
    ]  # fmt: skip
    return [value.encode() for value in values] + [
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b"\xef\xbb\xbf1",
        b"\0",
    ]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Where each value inside `value` is; its own place is empty."""
    yield at
    inside: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inside:
        yield from places(each, (*at, name))


def replaced(body: Any, place: Place, value: bytes) -> bytes:
    """The JSON of `body` with `value` at `place`."""
    if not place:
        return value
    marked = copy.deepcopy(body)
    parent = marked
    for name in place[:-1]:
        parent = parent[name]
    parent[place[-1]] = _MARK
    return json.dumps(marked).encode().replace(json.dumps(_MARK).encode(), value)


def without(body: Any, place: Place) -> bytes:
    """The JSON of `body` without what is at `place`."""
    marked = copy.deepcopy(body)
    parent = marked
    for name in place[:-1]:
        parent = parent[name]
    del parent[place[-1]]
    return json.dumps(marked).encode()


def enumerated(body: Any) -> Iterator[bytes]:
    """Each place of `body` with each wrong value, and without any."""
    values = wrong_values()
    for place in places(body):
        if place:
            yield without(body, place)
        for value in values:
            yield replaced(body, place, value)


def mutated(body: Any) -> st.SearchStrategy[bytes]:
    """`body` with something in it replaced, and perhaps spoiled besides."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> bytes:
        found = list(places(body))
        value = draw(st.one_of(st.sampled_from(wrong_values()), _json.map(_encoded), st.binary(max_size=40)))
        data = replaced(body, draw(st.sampled_from(found)), value)
        return draw(st.one_of(st.just(data), st.just(data), spoiled(data)))

    return draw_one()


def spoiled(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with a few bytes taken out, put in or put twice."""
    tokens = st.one_of(st.binary(max_size=6), st.sampled_from(TOKENS))
    place = st.integers(0, max(0, len(data) - 1))
    change = st.tuples(place, st.integers(0, 20), tokens)
    return st.lists(change, min_size=1, max_size=3).map(lambda changes: _changed(data, changes))


TOKENS = [
    b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b"\r\n\r\n", b"0\r\n\r\n", b"content-length: 5\r\n",
    b"content-length: 0\r\n",
    b"transfer-encoding: chunked\r\n", b"transfer-encoding: identity\r\n", b"connection: close\r\n", b"upgrade: h2c\r\n",
    b"connection: upgrade, keep-alive\r\n", b"expect: 100-continue\r\n", b"host: y\r\n",
    b"content-encoding: gzip\r\n", b"HTTP/1.0",
    b"HTTP/2.0", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"%00", b"%", b"#", b"?", b"//", b"..",
    b"\x7f", b"\xff", b"{", b"}", b"[", b'"', b"\\",
]  # fmt: skip

_MARK = "\x01here\x01"
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def _changed(data: bytes, changes: Sequence[tuple[int, int, bytes]]) -> bytes:
    for at, gone, new in changes:
        data = data[:at] + new + data[at + gone :]
    return data
