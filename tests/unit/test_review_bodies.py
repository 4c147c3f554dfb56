"""Bodies that are no JSON, not whole, or full of names that are nobody's."""

import json
from typing import Any

import pytest

from api.router.errors import RouterError
from api.router.exchange import Exchange
from api.router.faces.chat import ChatFace, parse_chat
from api.router.faces.completions import CompletionsFace
from api.router.faces.face import Face
from api.router.faces.messages import MessagesFace
from api.router.faces.responses import ResponsesFace

MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'
LONG = 1_000_000


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b'{"model":"\xff",' + MESSAGES + b"}", "invalid_value", "model"),
        (b'{"model":"m","messages":[{"role":"\xff"}]}', "invalid_value", "messages"),
        (b'{"model":"m","messages":[{"role":"u","content":[{"type":"\xff"}]}]}', "invalid_value", "messages"),
        (b'{"\xff":1,"model":"m",' + MESSAGES + b"}", "invalid_json", None),
        (b'{"model":"m",' + MESSAGES + b',"tools":' + b"[" * LONG, "invalid_json", None),
    ],
)
def test_what_cannot_be_decoded_is_the_callers_error(body: bytes, code: str, param: str | None) -> None:
    """Text that is no UTF-8 and endless nesting get a code of 400, not an error of ours."""
    with pytest.raises(RouterError) as refused:
        parse_chat(body)
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("face", "rest", "cap"),
    [
        (ChatFace(), MESSAGES, b"max_tokens"),
        (MessagesFace(), MESSAGES, b"max_tokens"),
        (ResponsesFace(), b'"input":"hi"', b"max_output_tokens"),
        (CompletionsFace(), b'"prompt":"hi"', b"max_tokens"),
    ],
)
def test_a_member_that_is_there_twice_goes_to_the_backend_once(face: Face, rest: bytes, cap: bytes) -> None:
    """As it was read here: a backend that reads the first one would serve another model, and put out more than was held for."""
    body = b'{ "model":"dear", "%b":900, "mystery":1.50, %b, "model":"m", "m\\u0061x_tokens":5, "%b":5}' % (
        cap,
        rest,
        cap,
    )
    protocol = "anthropic" if isinstance(face, MessagesFace) else "openai"
    request = face.parse(body, lambda _: None)
    assert (request.call.model, request.call.cap) == ("m", 5)
    went = request.carriage(protocol).body("m", 5)
    members = json.loads(went, object_pairs_hook=lambda pairs: pairs)
    assert len(members) == len(dict(members))
    assert (dict(members)["model"], dict(members)[cap.decode()]) == ("m", 5)
    assert b'"mystery":1.50' in went


def test_names_that_may_be_anything_are_cut() -> None:
    """What is unbounded is named in the answer and in the books for ever: by the beginning of its name."""
    field = json.dumps({"model": "m", "x" * LONG: 1, "messages": [{"role": "u", "content": "hi"}]})
    part = json.dumps({"model": "m", "messages": [{"role": "u", "content": [{"type": "x" * LONG}]}]})
    for body in (field, part):
        unbounded = parse_chat(body.encode()).call.unbounded
        assert unbounded is not None
        assert len(unbounded) < 300


async def test_a_body_that_broke_off_is_no_body() -> None:
    """The caller left half way: what came is not carried out, even if it could be read."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{}", "more_body": True},
        {"type": "http.disconnect"},
    ]
    with pytest.raises(RouterError) as refused:
        await _exchange(messages).read_body(100)
    assert refused.value.code == "request_timeout"


async def test_the_limit_holds_for_a_body_of_one_piece() -> None:
    """A chunked body states no length."""
    with pytest.raises(RouterError) as refused:
        await _exchange([{"type": "http.request", "body": b"x" * 101, "more_body": False}]).read_body(100)
    assert refused.value.code == "request_too_large"


def _exchange(messages: list[dict[str, Any]]) -> Exchange:
    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(_: dict[str, Any]) -> None:
        raise AssertionError("nothing is answered here")

    return Exchange("req_1", {"headers": []}, receive, send)
