"""Usage as OpenAI's responses report it, turned into Tollhouse's disjoint token classes."""

from typing import Any

import msgspec

from api.router.errors import NOT_JSON
from api.router.faces.chat_usage import CompletionDetails, PromptDetails, usage_of
from api.router.faces.chat_usage import Report as ChatReport
from domain.facts import Usage


class Report(msgspec.Struct):
    """The ``usage`` member of a response."""

    input_tokens: int
    output_tokens: int = 0
    input_tokens_details: PromptDetails | None = None
    output_tokens_details: CompletionDetails | None = None
    total_tokens: Any = None


class Response(msgspec.Struct):
    usage: Report | None = None


class Event(msgspec.Struct):
    """An event of a stream. Every event that ends one holds the whole response."""

    type: str = ""
    response: Response | None = None


_response = msgspec.json.Decoder(Response).decode


def usage_of_response(body: bytes, ceiling: int) -> Usage | None:
    """The usage a plain answer reports; None if it reports none that can be true (`ceiling`: tokens, either side)."""
    try:
        return usage_of_report(_response(body).usage, ceiling)
    except NOT_JSON:
        return None


def usage_of_report(report: Report | None, ceiling: int) -> Usage | None:
    """The same of the report itself."""
    if report is None:
        return None
    same = ChatReport(
        report.input_tokens,
        report.output_tokens,
        report.input_tokens_details,
        report.output_tokens_details,
        report.total_tokens,
    )
    return usage_of(same, ceiling)
