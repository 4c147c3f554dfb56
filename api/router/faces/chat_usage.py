"""Usage as OpenAI's protocol reports it, turned into Tollhouse's disjoint token classes."""

from typing import Any

import msgspec

from api.router.errors import NOT_JSON
from api.router.faces.cache_spellings import read_from_cache, written_to_cache
from domain.facts import Usage
from domain.token_report import usage_told


class PromptDetails(msgspec.Struct):
    """Parts of a report's input tokens. `cache_creation_input_tokens` is what some call `cache_write_tokens`."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_input_tokens: Any = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """Parts of a report's output tokens."""

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class Report(msgspec.Struct):
    """The ``usage`` member of an answer or of a stream's chunk. A total that is none is passed over. The last three are what some
    backends say of caches beside the details, or in their place: see `cache_spellings`."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    total_tokens: Any = None
    cached_tokens: Any = None
    prompt_cache_hit_tokens: Any = None
    prompt_cache_miss_tokens: Any = None


class _Answer(msgspec.Struct):
    usage: Report | None = None


class _EmbeddingsReport(msgspec.Struct):
    prompt_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    total_tokens: Any = None


class _Embeddings(msgspec.Struct):
    usage: _EmbeddingsReport | None = None


class _Chunk(msgspec.Struct):
    usage: Report | None = None
    choices: list[msgspec.Raw] | None = None


class _Told(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")
    choices: list[msgspec.Raw] | None = None


_NO_PROMPT, _NO_COMPLETION = PromptDetails(), CompletionDetails()

_told = msgspec.json.Decoder(_Told).decode
_answer = msgspec.json.Decoder(_Answer).decode
_embeddings = msgspec.json.Decoder(_Embeddings).decode
_chunk = msgspec.json.Decoder(_Chunk).decode


def usage_of_answer(body: bytes, ceiling: int) -> Usage | None:
    """The usage a plain answer reports; None if it reports none that can be true (`ceiling`: tokens, either side)."""
    try:
        report = _answer(body).usage
    except NOT_JSON:  # a backend's answer never is an error of ours
        return None
    return usage_of(report, ceiling)


def usage_of_embeddings(body: bytes, ceiling: int) -> Usage | None:
    """The same of an answer that has no output: all it tells is input, also where it tells the total alone."""
    try:
        report = _embeddings(body).usage
    except NOT_JSON:
        return None
    if report is None:
        return None
    counts = [count for count in (report.prompt_tokens, report.total_tokens) if type(count) is int]
    if not counts:
        return None
    return usage_of(Report(max(counts), prompt_tokens_details=report.prompt_tokens_details), ceiling)


def usage_of_chunk(data: bytes, ceiling: int) -> tuple[Usage | None, bool]:
    """The usage a stream's chunk reports, and whether the chunk holds nothing else."""
    try:
        chunk = _chunk(data)
    except NOT_JSON:
        return None, _tells_usage_alone(data)
    return usage_of(chunk.usage, ceiling), chunk.usage is not None and not chunk.choices


def _tells_usage_alone(data: bytes) -> bool:
    """The same of a report whose shape is none."""
    try:
        told = _told(data)
    except NOT_JSON:
        return False
    return bytes(told.usage) != b"null" and not told.choices


def usage_of(report: Report | None, ceiling: int) -> Usage | None:
    """A negative, inconsistent or impossibly large report is no report."""
    if report is None:
        return None
    prompt, completion = report.prompt_tokens_details or _NO_PROMPT, report.completion_tokens_details or _NO_COMPLETION
    put_out, reasoning = report.completion_tokens, completion.reasoning_tokens or 0
    beyond = _beyond(report, reasoning)
    if beyond and put_out + beyond <= ceiling:
        put_out, reasoning = put_out + beyond, beyond
    if max(report.prompt_tokens, put_out) > ceiling:
        return None
    cached = read_from_cache(
        report.prompt_tokens,
        prompt.cached_tokens,
        beside=report.cached_tokens,
        hit=report.prompt_cache_hit_tokens,
        missed=report.prompt_cache_miss_tokens,
    )
    return usage_told(
        report.prompt_tokens,
        put_out,
        cached=cached,
        written=written_to_cache(
            report.prompt_tokens - cached, prompt.cache_write_tokens, prompt.cache_creation_input_tokens
        ),
        audio=prompt.audio_tokens or 0,
        image=prompt.image_tokens or 0,
        reasoning=reasoning,
        spoken=completion.audio_tokens or 0,
    )


def _beyond(report: Report, reasoning: int) -> int:
    """Reasoning that is no part of the completion, but of the total only: xAI reports it so, and Google without a name for it."""
    if type(report.total_tokens) is not int:
        return 0
    beyond = report.total_tokens - report.prompt_tokens - report.completion_tokens
    return beyond if beyond > 0 and reasoning in (0, beyond) else 0
