"""Usage as Anthropic's protocol reports it, turned into Tollhouse's disjoint token classes.

There, input tokens exclude what was read from a cache or written to one, and output tokens include thinking. On a stream the
first report says what came in, and later ones are cumulative: what a later one leaves out stays as it was. What it took to make a
long conversation shorter (compaction) is among the iterations alone, and is added.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from api.router.errors import NOT_JSON
from domain.facts import Usage


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class Report(msgspec.Struct):
    """The ``usage`` member of a message or of a stream's event."""

    input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None
    iterations: Any = None


class _Iteration(msgspec.Struct):
    """One of the runs of the model that made an answer."""

    type: str
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


_INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_OUTPUT = ("output_tokens", "output_tokens_details")


class _Message(msgspec.Struct):
    usage: Report | None = None


_message = msgspec.json.Decoder(_Message).decode


def usage_of_message(body: bytes, ceiling: int) -> Usage | None:
    """The usage a plain answer reports; None if it reports none that can be true (`ceiling`: tokens, either side)."""
    try:
        report = _message(body).usage
    except NOT_JSON:  # a backend's answer never is an error of ours
        return None
    return usage_of(report, ceiling) if report is not None else None


def usage_of(report: Report, ceiling: int) -> Usage | None:
    """A negative, incomplete or impossibly large report is no report."""
    if report.input_tokens is None or report.output_tokens is None:
        return None
    cached, written = report.cache_read_input_tokens or 0, report.cache_creation_input_tokens or 0
    details = report.output_tokens_details
    thinking = (details.thinking_tokens or 0) if details else 0
    output = report.output_tokens - thinking
    if min(report.input_tokens, cached, written, output, thinking) < 0:
        return None
    if max(report.input_tokens + cached + written, report.output_tokens) > ceiling:
        return None
    usage = Usage(
        input=report.input_tokens, cached_input=cached, cache_write=written, output=output, reasoning=thinking
    )
    for iteration in _compactions(report.iterations):
        usage = _with(usage, iteration, ceiling)
    return usage


def joined(before: Report | None, after: Report) -> Report:
    """What is known after a later report of the same stream."""
    if before is None:
        return after
    return Report(
        **{
            name: getattr(before, name) if getattr(after, name) is None else getattr(after, name)
            for name in Report.__struct_fields__
        }
    )


def gone_on(before: Report | None, after: Report) -> Report:
    """The same, where the later one takes nothing back: a side of which it tells less than was told stays as it was."""
    known = joined(before, after)
    if before is not None and _came_in(known) < _came_in(before):
        known = replace(known, **{name: getattr(before, name) for name in _INPUT})
    if before is not None and (known.output_tokens or 0) < (before.output_tokens or 0):
        known = replace(known, **{name: getattr(before, name) for name in _OUTPUT})
    return known


def _came_in(report: Report) -> int:
    return sum(getattr(report, name) or 0 for name in _INPUT)


def _compactions(told: Any) -> list[_Iteration]:
    return [run for run in map(_iteration, told if isinstance(told, list) else ()) if run and run.type == "compaction"]


def _iteration(told: Any) -> _Iteration | None:
    try:
        return msgspec.convert(told, _Iteration)
    except msgspec.ValidationError:
        return None


def _with(usage: Usage, run: _Iteration, ceiling: int) -> Usage:
    """Usage and that of one more run; one that cannot be true is passed over."""
    cached, written = run.cache_read_input_tokens or 0, run.cache_creation_input_tokens or 0
    if min(run.input_tokens, cached, written, run.output_tokens) < 0:
        return usage
    if max(run.input_tokens + cached + written, run.output_tokens) > ceiling:
        return usage
    return replace(
        usage,
        input=usage.input + run.input_tokens,
        cached_input=usage.cached_input + cached,
        cache_write=usage.cache_write + written,
        output=usage.output + run.output_tokens,
    )
