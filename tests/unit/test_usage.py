"""Usage as a backend reports it: disjoint classes, and no report where none can be true."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from api.router.faces.chat_usage import usage_of_answer, usage_of_chunk
from domain.facts import Usage
from domain.token_report import latest

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
        ({"prompt_tokens": 3, "total_tokens": 3, "cost": 1.5, "prompt_tokens_details": {"text_tokens": 7}}, Usage(input=3)),
        (
            {"prompt_tokens": 30, "completion_tokens": 20, "prompt_tokens_details": {"audio_tokens": 4, "image_tokens": 5},
             "completion_tokens_details": {"audio_tokens": 6, "reasoning_tokens": 3, "rejected_prediction_tokens": 2}},
            Usage(input=21, audio_input=4, image_input=5, output=11, reasoning=3, audio_output=6),
        ),
        (
            {"prompt_tokens": 30, "prompt_tokens_details": {"cached_tokens": 20, "audio_tokens": 4, "image_tokens": 5}},
            Usage(input=1, cached_input=20, audio_input=4, image_input=5),
        ),
        (
            {"prompt_tokens": 30, "prompt_tokens_details": {"cached_tokens": 24, "audio_tokens": 4, "image_tokens": 5}},
            Usage(cached_input=24, audio_input=4, image_input=2),
        ),
        (
            {"prompt_tokens": 30, "prompt_tokens_details": {"cached_tokens": 27, "audio_tokens": 4, "image_tokens": 5}},
            Usage(cached_input=27, audio_input=3),
        ),
    ],
)  # fmt: skip
def test_classes_are_disjoint(report: Any, expected: Usage) -> None:
    """Cached and cache-written tokens, sound and pictures are part of the prompt, reasoning and sound part of the completion;
    what was cached stays so where it must have been sound or picture too; other members are passed over."""
    assert usage_of_answer(answer(report), CEILING) == expected
    assert usage_of_chunk(answer(report), CEILING)[0] == expected


def beyond(total: Any, reasoning: int | None, completion: int = 4) -> dict[str, Any]:
    details = None if reasoning is None else {"reasoning_tokens": reasoning}
    return {
        "prompt_tokens": 10,
        "completion_tokens": completion,
        "total_tokens": total,
        "completion_tokens_details": details,
    }


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (beyond(94, 80), Usage(input=10, output=4, reasoning=80)),
        (beyond(17, 3), Usage(input=10, output=4, reasoning=3)),
        (beyond(94, None), Usage(input=10, output=4, reasoning=80)),
        (beyond(70, 60, completion=0), Usage(input=10, reasoning=60)),
        (beyond(14, 3), Usage(input=10, output=1, reasoning=3)),
        (beyond(94, 3), Usage(input=10, output=1, reasoning=3)),
        (beyond(1, 3), Usage(input=10, output=1, reasoning=3)),
        (beyond(CEILING * 2, None), Usage(input=10, output=4)),
        (beyond("94", 3), Usage(input=10, output=1, reasoning=3)),
        (beyond(31.5, 3), Usage(input=10, output=1, reasoning=3)),
        (beyond(True, 3), Usage(input=10, output=1, reasoning=3)),
        (beyond(14, 80), None),
    ],
)
def test_reasoning_that_only_the_total_has_is_counted(report: Any, expected: Usage | None) -> None:
    """Some backends leave it out of the completion: it is told beside it, or shows in the total alone. A total that says anything
    else is passed over."""
    assert usage_of_answer(answer(report), CEILING) == expected
    assert usage_of_chunk(answer(report), CEILING)[0] == expected


def spelled(details: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    return {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": details, **members}


@pytest.mark.parametrize(
    ("report", "cached", "written"),
    [
        (spelled(prompt_cache_hit_tokens=7, prompt_cache_miss_tokens=3), 7, 0),
        (spelled(prompt_cache_hit_tokens=0, prompt_cache_miss_tokens=10), 0, 0),
        (spelled(prompt_cache_hit_tokens=7), 7, 0),
        (spelled({"cached_tokens": 7}, prompt_cache_hit_tokens=7, prompt_cache_miss_tokens=3), 7, 0),
        (spelled(cached_tokens=10), 10, 0),
        (spelled({"cached_tokens": 6}, cached_tokens=6), 6, 0),
        (spelled({"cached_tokens": None}, cached_tokens=6), 6, 0),
        (spelled({"cache_creation_input_tokens": 8, "cached_tokens": 0}), 0, 8),
        (spelled({"cache_creation_input_tokens": 8, "cache_write_tokens": 8}), 0, 8),
        (spelled({"cache_creation_input_tokens": 2}, cached_tokens=8), 8, 2),
    ],
)
def test_caches_are_read_as_their_backend_spells_them(report: Any, cached: int, written: int) -> None:
    """DeepSeek's hits, Moonshot's count beside the prompt and Qwen's name for what was written are parts of the prompt."""
    expected = Usage(input=10 - cached - written, cached_input=cached, cache_write=written, output=4)
    assert usage_of_answer(answer(report), CEILING) == expected
    assert usage_of_chunk(answer(report), CEILING)[0] == expected


@pytest.mark.parametrize(
    ("report", "cached", "written"),
    [
        (spelled(prompt_cache_hit_tokens=7, prompt_cache_miss_tokens=4), 0, 0),
        (spelled(prompt_cache_hit_tokens=7, prompt_cache_miss_tokens="3"), 0, 0),
        (spelled(prompt_cache_hit_tokens=11, prompt_cache_miss_tokens=-1), 0, 0),
        (spelled(prompt_cache_hit_tokens=-1), 0, 0),
        (spelled(prompt_cache_miss_tokens=3), 0, 0),
        (spelled(cached_tokens=11), 0, 0),
        (spelled(cached_tokens=True), 0, 0),
        (spelled(cached_tokens="7"), 0, 0),
        (spelled(cached_tokens={"text": 7}), 0, 0),
        (spelled({"cached_tokens": 2}, cached_tokens=7), 2, 0),
        (spelled({"cached_tokens": 7}, cached_tokens=2), 2, 0),
        (spelled({"cached_tokens": 0}, prompt_cache_hit_tokens=7, prompt_cache_miss_tokens=3), 0, 0),
        (spelled({"cached_tokens": 7}, cached_tokens=2, prompt_cache_hit_tokens=5), 2, 0),
        (spelled({"cache_creation_input_tokens": 11}), 0, 0),
        (spelled({"cache_creation_input_tokens": -1}), 0, 0),
        (spelled({"cache_creation_input_tokens": "8"}), 0, 0),
        (spelled({"cache_creation_input_tokens": 4, "cached_tokens": 7}), 7, 0),
        (spelled({"cache_creation_input_tokens": 8, "cache_write_tokens": 2}), 0, 8),
    ],
)
def test_of_spellings_that_do_not_agree_the_dearer_counts(report: Any, cached: int, written: int) -> None:
    """What cannot be true of them is charged at the full price, and takes nothing from the rest of the report."""
    expected = Usage(input=10 - cached - written, cached_input=cached, cache_write=written, output=4)
    assert usage_of_answer(answer(report), CEILING) == expected
    assert usage_of_chunk(answer(report), CEILING)[0] == expected


@pytest.mark.parametrize(
    "details", [{"cached_tokens": 11}, {"cached_tokens": -1}, {"cache_write_tokens": -1}, {"cache_write_tokens": 11}]
)
def test_another_spelling_makes_no_report_of_one_that_is_none(details: dict[str, Any]) -> None:
    """What OpenAI's own spelling says and cannot be true makes all of it no report, as it does alone."""
    other = {**details, "cache_creation_input_tokens": 1}
    assert usage_of_answer(answer(spelled(other, cached_tokens=4)), CEILING) is None


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
        {"prompt_tokens": 9, "prompt_tokens_details": {"audio_tokens": 5, "image_tokens": 5}},
        {"prompt_tokens": 9, "prompt_tokens_details": {"image_tokens": -1}},
        {"prompt_tokens": 1, "completion_tokens": 5,
         "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 3}},
        {"prompt_tokens": CEILING + 1},
        {"prompt_tokens": 1, "completion_tokens": CEILING + 1},
        {"prompt_tokens": 10**30},
    ],
)  # fmt: skip
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
        ({"choices": None, "usage": {"prompt_tokens": 1}}, True),
        ({"choices": None, "usage": {"prompt_tokens": "1"}}, True),
        ({"choices": [], "usage": None}, False),
        ({"choices": [{"index": 0}]}, False),
    ],
)
def test_a_chunk_of_nothing_but_usage_is_told_apart(chunk: Any, alone: bool) -> None:
    """Also where its figures cannot be true: nobody asked for it all the same."""
    assert usage_of_chunk(json.dumps(chunk).encode(), CEILING)[1] is alone


counts = st.integers(-3, 120)


@given(counts, counts, counts, counts, counts, counts, counts, counts)
def test_no_token_is_lost_or_made(
    prompt: int, cached: int, written: int, audio: int, image: int, completion: int, reasoning: int, spoken: int
) -> None:
    """What is accepted sums to what was reported, with no class below zero; what was cached, and what went out, is as told."""
    report = {
        "prompt_tokens": prompt,
        "prompt_tokens_details": {
            "cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": audio, "image_tokens": image
        },
        "completion_tokens": completion,
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": spoken},
    }  # fmt: skip
    usage = usage_of_answer(answer(report), CEILING)
    if usage is None:
        parts = (cached, written, audio, image, reasoning, spoken)
        room = (prompt - cached - written, prompt - audio - image, completion - reasoning - spoken)
        assert min(*parts, *room) < 0 or max(prompt, completion) > CEILING
        return
    assert usage.all_input == prompt <= CEILING
    assert usage.all_output == completion <= CEILING
    assert (usage.cached_input, usage.cache_write, usage.reasoning, usage.audio_output) == (
        cached,
        written,
        reasoning,
        spoken,
    )
    assert usage.audio_input <= audio
    assert usage.image_input <= image
    assert min(structs.astuple(usage)) >= 0


def test_the_last_report_counts_and_zeros_take_nothing_back() -> None:
    """Some backends end a stream with a report of nothing, behind the real one."""
    first, more, nothing = Usage(input=3), Usage(input=3, output=4), Usage()
    assert latest(more, first) == more
    assert latest(None, first) == first
    assert latest(nothing, more) == more
    assert latest(nothing, None) == nothing
