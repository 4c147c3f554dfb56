"""A plain completion: how many answers it has, what it may cost, what is wrong with it."""

import json
from typing import Any

import pytest

from api.router.errors import RouterError
from api.router.faces.completions import CompletionsRequest, parse_completions
from domain.bound import OVERHEAD


def asked(**fields: Any) -> CompletionsRequest:
    return parse_completions(json.dumps({"model": "m", "prompt": "hi", **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "choices"),
    [({}, 1), ({"n": 3}, 3), ({"prompt": ["a", "b"]}, 2), ({"prompt": ["a", "b"], "n": 3}, 6), ({"prompt": [1, 2, 3]}, 1),
     ({"prompt": [[1], [2, 3]]}, 2)],
)  # fmt: skip
def test_every_prompt_is_answered_n_times(fields: dict[str, Any], choices: int) -> None:
    """What is held is for all of them."""
    assert asked(**fields).call.choices == choices


def test_text_is_bounded_by_its_bytes() -> None:
    """Tokens are never shorter than a byte, also where they are written as numbers."""
    request = asked(max_tokens=5)
    assert request.call.input_bound == len(request.sent) + OVERHEAD
    assert (request.call.cap, request.call.unbounded) == (5, None)


@pytest.mark.parametrize("field", ["best_of", "web_search"])
def test_what_is_not_listed_has_no_bound(field: str) -> None:
    """Answers that are thrown away are charged for too."""
    assert asked(**{field: 2}).call.unbounded == field


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"prompt": None}, "prompt"), ({"prompt": {}}, "prompt"), ({"n": 0}, "n"), ({"n": 129}, "n"),
     ({"max_tokens": 0}, "max_tokens"),
     ({"stream": "yes"}, "stream")],
)  # fmt: skip
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    """400 invalid_value with the field."""
    with pytest.raises(RouterError) as refused:
        asked(**fields)
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)


def test_it_goes_to_the_path_of_completions() -> None:
    """With the granted cap and usage asked for on a stream."""
    carriage = asked(stream=True).carriage("openai")
    assert carriage.path == "/completions"
    went = json.loads(carriage.body("up", 7))
    assert (went["model"], went["max_tokens"], went["stream_options"]) == ("up", 7, {"include_usage": True})
    with pytest.raises(RouterError) as refused:
        asked().carriage("anthropic")
    assert refused.value.code == "unsupported_parameter"
