"""Usage as a backend reports it: disjoint classes, and no report where none can be true."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.router.faces.chat_usage import usage_of_answer, usage_of_chunk
from domain.facts import Usage

CEILING = 100


def answer(usage: Any) -> bytes:
    return json.dumps({"id": "x", "choices": [{"index": 0}], "usage": usage}).encode()


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(input=3, output=4)),
        ({"prompt_tokens": 3}, Usage(input=3)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
        (
            {"prompt_tokens": 10, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4},
             "completion_tokens_details": {"reasoning_tokens": 5}},
            Usage(input=6, cached_input=4, output=4, reasoning=5),
        ),
        (
            {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 6}},
            Usage(cached_input=4, cache_write=6),
        ),
        (
            {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": None}, "completion_tokens_details": None},
            Usage(input=1),
        ),
        ({"prompt_tokens": CEILING, "completion_tokens": CEILING}, Usage(input=CEILING, output=CEILING)),
        ({"prompt_tokens": 3, "total_tokens": 99, "cost": 1.5, "prompt_tokens_details": {"audio_tokens": 7}}, Usage(input=3)),
    ],
)  # fmt: skip
def test_classes_are_disjoint(report: Any, expected: Usage) -> None:
    """Cached and cache-written tokens are part of the prompt, reasoning part of the completion; other members are passed over."""
    assert usage_of_answer(answer(report), CEILING) == expected
    assert usage_of_chunk(answer(report), CEILING)[0] == expected


@pytest.mark.parametrize(
    "report",
    [
        None,
        "many",
        [],
        {},
        {"completion_tokens": 4},
        {"prompt_tokens": -1},
        {"prompt_tokens": 1, "completion_tokens": -1},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": "3"},
        {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}},
        {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": -2}},
        {"prompt_tokens": 1, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 2}},
        {"prompt_tokens": CEILING + 1},
        {"prompt_tokens": 1, "completion_tokens": CEILING + 1},
        {"prompt_tokens": 10**30},
    ],
)
def test_what_cannot_be_true_is_no_report(report: Any) -> None:
    """Absent, malformed, negative, inconsistent, or beyond what the model can hold."""
    assert usage_of_answer(answer(report), CEILING) is None
    assert usage_of_chunk(answer(report), CEILING)[0] is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"[]", b'{"usage":', b"\xff\xfe"])
def test_a_body_that_is_no_answer_reports_nothing(body: bytes) -> None:
    """A refusal in another language is not an error of ours."""
    assert usage_of_answer(body, CEILING) is None
    assert usage_of_chunk(body, CEILING) == (None, False)


@pytest.mark.parametrize(
    ("chunk", "alone"),
    [
        ({"choices": [], "usage": {"prompt_tokens": 1}}, True),
        ({"usage": {"prompt_tokens": 1}}, True),
        ({"choices": [], "usage": {"prompt_tokens": 10**9}}, True),
        ({"choices": [{"index": 0}], "usage": {"prompt_tokens": 1}}, False),
        ({"choices": [], "usage": None}, False),
        ({"choices": [{"index": 0}]}, False),
    ],
)
def test_a_chunk_of_nothing_but_usage_is_told_apart(chunk: Any, alone: bool) -> None:
    """Also where its figures cannot be true: nobody asked for it all the same."""
    assert usage_of_chunk(json.dumps(chunk).encode(), CEILING)[1] is alone


@given(
    prompt=st.integers(-5, 120), cached=st.integers(-5, 120), written=st.integers(-5, 120),
    completion=st.integers(-5, 120), reasoning=st.integers(-5, 120),
)  # fmt: skip
def test_no_token_is_lost_or_made(prompt: int, cached: int, written: int, completion: int, reasoning: int) -> None:
    """What is accepted sums to what was reported, with no class below zero."""
    report = {
        "prompt_tokens": prompt, "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens": completion, "completion_tokens_details": {"reasoning_tokens": reasoning},
    }  # fmt: skip
    usage = usage_of_answer(answer(report), CEILING)
    if usage is not None:
        assert usage.input + usage.cached_input + usage.cache_write == prompt <= CEILING
        assert usage.output + usage.reasoning == completion <= CEILING
        assert min(usage.input, usage.cached_input, usage.cache_write, usage.output, usage.reasoning) >= 0
    else:
        assert min(prompt - cached - written, cached, written, completion - reasoning, reasoning) < 0 or (
            max(prompt, completion) > CEILING
        )
