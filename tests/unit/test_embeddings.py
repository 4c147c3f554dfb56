"""Embeddings: only the input costs."""

import json
from typing import Any

import pytest

from api.router.errors import RouterError
from api.router.faces.embeddings import EmbeddingsRequest, parse_embeddings
from domain.facts import Usage


def asked(**fields: Any) -> EmbeddingsRequest:
    return parse_embeddings(json.dumps({"model": "m", "input": "hi", **fields}).encode())


@pytest.mark.parametrize("given", ["hi", ["a", "b"], [1, 2], [[1], [2]]])
def test_nothing_is_put_out(given: Any) -> None:
    """The hold is for the input alone."""
    call = asked(input=given).call
    assert (call.cap, call.unbounded, call.stream) == (0, None, False)


@pytest.mark.parametrize("given", [None, "", {}])
def test_what_is_wrong_is_named(given: Any) -> None:
    """400 invalid_value with the field."""
    with pytest.raises(RouterError) as refused:
        asked(input=given)
    assert (refused.value.code, refused.value.param) == ("invalid_value", "input")


def test_what_is_not_listed_has_no_bound() -> None:
    """A field that nobody knows may cost anything."""
    assert asked(extra=1).call.unbounded == "extra"


def test_usage_is_that_of_the_input() -> None:
    """There are no completion tokens, and nothing but the model's name is changed."""
    request = asked()
    carriage = request.carriage("openai")
    assert (carriage.path, carriage.body("m", 0)) == ("/embeddings", request.sent)
    assert json.loads(carriage.body("up", 0)) == {"model": "up", "input": "hi"}
    answer = b'{"data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}'
    assert carriage.answer(answer, 100) == (Usage(input=7), answer)


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        ({"total_tokens": 7}, Usage(input=7)),
        ({"prompt_tokens": None, "total_tokens": 7}, Usage(input=7)),
        ({"prompt_tokens": 7, "completion_tokens": None, "total_tokens": 7}, Usage(input=7)),
        ({"prompt_tokens": 5, "total_tokens": 7}, Usage(input=7)),
        ({"prompt_tokens": 7, "total_tokens": "7"}, Usage(input=7)),
        ({"prompt_tokens": 7, "prompt_tokens_details": {"image_tokens": 3}}, Usage(input=4, image_input=3)),
        ({"total_tokens": 101}, None),
        ({"total_tokens": -1}, None),
        ({"total_tokens": True}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_total_is_input(report: Any, usage: Usage | None) -> None:
    """Voyage reports nothing else; and there is no output that the rest could be."""
    answer = json.dumps({"data": [], "usage": report}).encode()
    assert asked().carriage("openai").answer(answer, 100)[0] == usage
