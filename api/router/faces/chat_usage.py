"""Usage as OpenAI's protocol reports it, turned into Tollhouse's disjoint token classes."""

import msgspec

from api.router.errors import NOT_JSON
from domain.facts import Usage


class PromptDetails(msgspec.Struct):
    """Parts of a report's input tokens."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """Parts of a report's output tokens."""

    reasoning_tokens: int | None = None


class Report(msgspec.Struct):
    """The ``usage`` member of an answer or of a stream's chunk."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class _Answer(msgspec.Struct):
    usage: Report | None = None


class _Chunk(msgspec.Struct):
    usage: Report | None = None
    choices: list[msgspec.Raw] = []


class _Told(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")
    choices: list[msgspec.Raw] = []


_told = msgspec.json.Decoder(_Told).decode
_answer = msgspec.json.Decoder(_Answer).decode
_chunk = msgspec.json.Decoder(_Chunk).decode


def usage_of_answer(body: bytes, ceiling: int) -> Usage | None:
    """The usage a plain answer reports; None if it reports none that can be true (`ceiling`: tokens, either side)."""
    try:
        report = _answer(body).usage
    except NOT_JSON:  # a backend's answer never is an error of ours
        return None
    return usage_of(report, ceiling)


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
    prompt, completion = report.prompt_tokens_details, report.completion_tokens_details
    cached = (prompt.cached_tokens or 0) if prompt else 0
    written = (prompt.cache_write_tokens or 0) if prompt else 0
    reasoning = (completion.reasoning_tokens or 0) if completion else 0
    plain, output = report.prompt_tokens - cached - written, report.completion_tokens - reasoning
    if (
        min(plain, cached, written, output, reasoning) < 0
        or max(report.prompt_tokens, report.completion_tokens) > ceiling
    ):
        return None
    return Usage(input=plain, cached_input=cached, cache_write=written, output=output, reasoning=reasoning)
