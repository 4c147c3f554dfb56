"""Attacks on HTTP itself, by name: what could be read in two ways is refused; what is right is understood, however it comes."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.attack.endpoints import CHAT, ENDPOINTS, Endpoint
from tests.attack.house import HARD, Target, target
from tests.attack.messages import chunked, head, post
from tests.attack.wire import converse
from tests.backend import Backend
from tests.lab import Key, Lab, Row
from tests.waiting import eventually, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}).encode()
IN_CHUNKS = chunked(BODY, [10])
BOMB = gzip.compress(bytes(10_000_000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[Target]:
    async with target() as made:
        yield made


def asking(headers: bytes, body: bytes = BODY, line: bytes = b"POST /v1/chat/completions HTTP/1.1") -> bytes:
    """A request with these headers beside host and key, which ``KEY`` stands for."""
    return line + b"\r\nhost: x\r\nauthorization: Bearer KEY\r\n" + headers + b"\r\n" + body


LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"

AMBIGUOUS = {
    "a length and chunks": asking(LENGTH + CHUNKED, IN_CHUNKS),
    "chunks and a length": asking(CHUNKED + LENGTH, IN_CHUNKS),
    "two lengths": asking(LENGTH + b"content-length: 5\r\n"),
    "a length twice": asking(LENGTH + LENGTH),
    "a list of lengths": asking(b"content-length: 5, 5\r\n"),
    "a length with a sign": asking(b"content-length: +5\r\n"),
    "a negative length": asking(b"content-length: -5\r\n"),
    "a length in hex": asking(b"content-length: 0x5\r\n"),
    "a length in two words": asking(b"content-length: 5 7\r\n"),
    "a length that no number holds": asking(b"content-length: 99999999999999999999\r\n"),
    "an empty length": asking(b"content-length: \r\n"),
    "chunks twice": asking(CHUNKED + CHUNKED, IN_CHUNKS),
    "chunks, then another coding": asking(b"transfer-encoding: chunked, identity\r\n", IN_CHUNKS),
    "another coding, then chunks": asking(b"transfer-encoding: gzip, chunked\r\n", IN_CHUNKS),
    "a coding nobody knows": asking(b"transfer-encoding: xchunked\r\n", IN_CHUNKS),
    "chunks behind a control character": asking(b"transfer-encoding: \x0bchunked\r\n", IN_CHUNKS),
    "a space before the colon": asking(b"transfer-encoding : chunked\r\n", IN_CHUNKS),
    "chunks in HTTP/1.0": asking(CHUNKED, IN_CHUNKS, b"POST /v1/chat/completions HTTP/1.0"),
    "a chunk without a size": asking(CHUNKED, b"\r\nabc\r\n0\r\n\r\n"),
    "a chunk of no size": asking(CHUNKED, b"zz\r\nabc\r\n0\r\n\r\n"),
    "a chunk of a negative size": asking(CHUNKED, b"-3\r\nabc\r\n0\r\n\r\n"),
    "a chunk with 0x": asking(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk that no number counts": asking(CHUNKED, b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": asking(CHUNKED, b"3\r\nabcd\r\n0\r\n\r\n"),
    "a space behind a chunk's size": asking(CHUNKED, b"3 \r\nabc\r\n0\r\n\r\n"),
    "a chunk whose extension ends with LF": asking(CHUNKED, b"3;a\nabc\r\n0\r\n\r\n"),
    "lines that end with LF": asking(LENGTH).replace(b"\r\n", b"\n", 5),
    "a line that goes on": asking(LENGTH + b"x-a: b\r\n c\r\n"),
    "NUL in a value": asking(LENGTH + b"x-a: b\0c\r\n"),
    "CR in a value": asking(LENGTH + b"x-a: b\rx-b: c\r\n"),
    "LF in a value": asking(LENGTH + b"x-a: b\nx b\r\n"),
    "NUL in a name": asking(LENGTH + b"x\0a: b\r\n"),
    "a name that is empty": asking(LENGTH + b": b\r\n"),
    "a line without a colon": asking(LENGTH + b"x-a\r\n"),
    "no host": b"GET /v1/models HTTP/1.1\r\nauthorization: Bearer KEY\r\n\r\n",
    "two hosts": asking(b"host: y\r\n", b"", b"GET /v1/models HTTP/1.1"),
    "a host with a path": b"GET /v1/models HTTP/1.1\r\nhost: x/y\r\nauthorization: Bearer KEY\r\n\r\n",
    "a tunnel": b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a tunnel with a body": asking(LENGTH, BODY, b"CONNECT /v1/chat/completions HTTP/1.1"),
    "a method nobody knows": asking(LENGTH, BODY, b"FETCH /v1/chat/completions HTTP/1.1"),
    "a method in small letters": asking(LENGTH, BODY, b"post /v1/chat/completions HTTP/1.1"),
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/1.2": asking(LENGTH, BODY, b"POST /v1/chat/completions HTTP/1.2"),
    "HTTP/2.0": asking(LENGTH, BODY, b"POST /v1/chat/completions HTTP/2.0"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "NUL in the path": asking(LENGTH, BODY, b"POST /v1/chat/completions\0 HTTP/1.1"),
    "a space in the path": asking(LENGTH, BODY, b"POST /v1/chat completions HTTP/1.1"),
    "bytes in the path": asking(LENGTH, BODY, b"POST /v1/\xc3\xa9 HTTP/1.1"),
    "bytes in the query": asking(LENGTH, BODY, b"POST /v1/chat/completions?a=\xff HTTP/1.1"),
}  # fmt: skip

TOO_LARGE = {
    "a path": b"GET /v1/" + b"a" * 300_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "a header": asking(LENGTH + b"x-a: " + b"a" * 100_000 + b"\r\n"),
    "a name": asking(LENGTH + b"a" * 100_000 + b": a\r\n"),
    "many headers": asking(LENGTH + b"x-a: b\r\n" * 300),
    "very many headers": asking(LENGTH + b"x-a: b\r\n" * 100_000),
    "a header behind the body": asking(CHUNKED, IN_CHUNKS[:-2] + b"x-a: " + b"a" * 600_000 + b"\r\n\r\n"),
    "an extension of a chunk": asking(CHUNKED, b"3;a=" + b"a" * 600_000 + b"\r\nabc\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_what_could_be_read_in_two_ways_is_refused(house: Target, name: str) -> None:
    """400 `invalid_http`, the connection ends, and nothing that follows on it is taken for a request."""
    data = AMBIGUOUS[name].replace(b"KEY", house.keys[HARD].secret.encode())
    before = len(house.hello.served())
    conversation = await house.attack([data + post(house.keys[HARD].secret, BODY)], ["POST"])
    (answer,) = conversation.answers
    assert (answer.status, answer.code, answer.last) == (400, "invalid_http", True)
    assert conversation.ended
    assert len(house.hello.served()) == before


@pytest.mark.parametrize("name", TOO_LARGE)
async def test_what_comes_beside_a_body_is_bounded(house: Target, name: str) -> None:
    """431 `head_too_large`, and the connection ends; the caller can read that, although not all was taken from him."""
    data = TOO_LARGE[name].replace(b"KEY", house.keys[HARD].secret.encode())
    conversation = await house.attack([data], ["POST"])
    (answer,) = conversation.answers
    assert (answer.status, answer.code, answer.last) == (431, "head_too_large", True)


@pytest.mark.parametrize(
    "data",
    [
        asking(b"Transfer-Encoding:\t Chunked\r\n", IN_CHUNKS),
        asking(CHUNKED, chunked(BODY, [1, 2, 50], b';a="b c"', b"x-a: b\r\n")),
        asking(LENGTH, BODY, b"POST http://elsewhere.example/v1/chat/completions?x=1 HTTP/1.1"),
        asking(LENGTH + b"x-a: \xff\xfe\r\nx-empty:\r\n"),
        b"\r\n\r\n" + asking(LENGTH),
        b"POST /v1/chat/completions HTTP/1.0\r\nauthorization: Bearer KEY\r\n" + LENGTH + b"\r\n" + BODY,
    ],
)
async def test_what_is_right_is_understood(house: Target, data: bytes) -> None:
    """Also where it looks odd."""
    data = data.replace(b"KEY", house.keys[HARD].secret.encode())
    (answer,) = (await house.attack([data], ["POST"])).answers
    assert answer.status == 200, answer


@pytest.mark.parametrize("cut", [False, True])
async def test_an_offer_to_change_protocols_is_passed_over(house: Target, cut: bool) -> None:
    """As common clients make it with a request: the body is read, whether it comes with the head or later, and the connection
    goes on. Its bytes are never taken for a request."""
    secret = house.keys[HARD].secret
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    start, body = post(secret, BODY, headers=offer).split(b"\r\n\r\n", 1)
    pieces = [start + b"\r\n\r\n", body] if cut else [start + b"\r\n\r\n" + body]
    last = post(secret, b"{}", headers=b"connection: upgrade, close\r\nupgrade: websocket\r\n")
    answers = (await house.attack([*pieces, post(secret, BODY, headers=offer), last], ["POST"] * 3)).answers
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert [answer.last for answer in answers] == [False, False, True]


async def test_fields_behind_a_body_are_no_headers(house: Target) -> None:
    """Neither a key nor an Idempotency-Key can come there: whoever looked at the head saw none."""
    secret = house.keys[HARD].secret
    bare = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + CHUNKED + b"\r\n"
    key = chunked(BODY, [], trailer=f"authorization: Bearer {secret}\r\n".encode())
    once = head(secret, "POST", CHAT.path) + CHUNKED + b"\r\n" + chunked(BODY, [], trailer=b"idempotency-key: a\r\n")
    answers = (await house.attack([bare + key + once + once], ["POST"] * 3)).answers
    assert [answer.status for answer in answers] == [401, 200, 200]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity", "x"])
async def test_a_compressed_body_is_refused_by_name(house: Target, endpoint: Endpoint, encoding: str) -> None:
    """415 `unsupported_encoding` before it is read: what would come out of it is bounded by nothing."""
    secret = house.keys[HARD].secret
    headers = endpoint.headers + f"content-encoding: {encoding}\r\n".encode()
    (answer,) = (await house.attack([post(secret, BOMB, endpoint.path, headers)], ["POST"])).answers
    assert (answer.status, answer.code) == (415, "unsupported_encoding")
    body, headers = json.dumps(endpoint.body).encode(), endpoint.headers + b"content-encoding: Identity\r\n"
    (answer,) = (await house.attack([post(secret, body, endpoint.path, headers)], ["POST"])).answers
    assert answer.status == 200, answer


async def test_an_answer_that_comes_before_its_request_ends_the_connection(house: Target) -> None:
    """A stranger, and a body that is too large: the answer says that it is the last, is not preceded by an invitation to go on,
    and can be read although the caller goes on sending. What he sends is no request."""
    stranger = head("th_sk_x", "POST", CHAT.path) + b"expect: 100-continue\r\ncontent-length: 1000000\r\n\r\n"
    large = head(house.keys[HARD].secret, "POST", CHAT.path) + b"content-length: 90000000\r\n\r\n"
    inside = post(house.keys[HARD].secret, BODY)
    before = len(house.hello.served())
    for data, status in ((stranger, 401), (large, 413)):
        conversation = await house.attack([data, *[inside * 100] * 20], ["POST"])
        (answer,) = conversation.answers
        assert (answer.status, answer.last, conversation.ended) == (status, True, True)
    assert len(house.hello.served()) == before


async def test_an_invitation_to_go_on_comes_once_it_is_wanted(house: Target) -> None:
    """``Expect: 100-continue``: one interim answer, before the body is sent."""
    host, _, port = house.lab.listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    start, body = post(house.keys[HARD].secret, BODY, headers=b"expect: 100-continue\r\n").split(b"\r\n\r\n", 1)
    writer.write(start + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


# -- several requests of one connection


@dataclass(frozen=True, slots=True)
class Gated:
    """An organization of its own, and a backend that answers when the test says so."""

    lab: Lab
    fake: Backend
    org: str
    key: Key
    body: bytes

    def post(self, **fields: bool) -> bytes:
        return post(self.key.secret, json.dumps({**json.loads(self.body), **fields}).encode())

    async def rows(self, outcomes: Sequence[str]) -> list[Row]:
        """The organization's requests once they have these outcomes, or as they are in the end."""
        return await eventually(lambda: self.lab.rows(self.org), lambda rows: [r.outcome for r in rows] == outcomes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab() -> AsyncIterator[Lab]:
    async with Lab() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def gated(lab: Lab, request: pytest.FixtureRequest) -> Gated:
    name = request.node.name.replace("_", "-")
    fake = await lab.fake()
    fake.gates[name] = asyncio.Event()
    await lab.model(name, fake.url, backend=name)
    return Gated(lab, fake, name, (await lab.org(name))["main"], BODY.replace(b'"m"', f'"{name}"'.encode()))


async def test_a_refusal_comes_behind_the_answers_that_are_owed(gated: Gated) -> None:
    """Of three requests on one connection the last is broken: the first two get their own answers, in order."""
    secret = gated.key.secret
    broken = head(secret, "POST", CHAT.path) + CHUNKED + b"\r\nzz\r\n"
    data = gated.post() + head(secret, "GET", "/v1/models") + b"\r\n" + broken
    talking = asyncio.create_task(converse(gated.lab.listen, [data], ["POST", "GET", "POST"]))
    await until(lambda: len(gated.fake.received) == 1, "the first request is with its backend")
    gated.fake.gates[gated.org].set()
    conversation = await talking
    told = [(answer.status, answer.code) for answer in conversation.answers]
    assert told == [(200, None), (200, None), (400, "invalid_http")]
    assert conversation.ended
    assert len(gated.fake.received) == 1


async def test_whoever_leaves_leaves_all_requests_of_the_connection(gated: Gated) -> None:
    """Also the one that streams while another one waits behind it: its backend is left, and what was seen is charged."""
    host, _, port = gated.lab.listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(gated.post(stream=True) + gated.post())
    await reader.readuntil(b"data: ")
    writer.close()
    await until(lambda: len(gated.fake.left) == 1, "the backend was left")
    assert [row.estimated for row in await gated.rows(["completed"])] == [True]
    assert len(gated.fake.received) == 1


async def test_whoever_closes_one_side_has_left(gated: Gated) -> None:
    """A plain request is read to its end and charged exactly; the connection ends at once."""
    conversation = await converse(gated.lab.listen, [gated.post()], ["POST"], leave=True)
    assert (conversation.answers, conversation.ended) == ([], True)
    await until(lambda: len(gated.fake.received) == 1, "the request is with its backend")
    gated.fake.gates[gated.org].set()
    assert [row.estimated for row in await gated.rows(["completed"])] == [False]


async def test_half_a_command_is_none(lab: Lab) -> None:
    """A command whose body was to be longer is not carried out, although what came of it is one."""
    body = b'{"id": "half", "name": "Half"}'
    json_type = b"content-type: application/json\r\n"
    start = head(lab.admin_key, "POST", "/admin/v1/orgs") + json_type
    for framing in (b"content-length: 100\r\n\r\n" + body, CHUNKED + b"\r\n" + chunked(body, [])[:-5]):
        await converse(lab.listen, [start + framing], ["POST"], leave=True)
    whole = post(lab.admin_key, body.replace(b"half", b"whole"), "/admin/v1/orgs", json_type)
    assert (await converse(lab.listen, [whole], ["POST"])).answers[0].status == 201
    assert (await lab.command("GET", "/orgs/half")).status == 404
