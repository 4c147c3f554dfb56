"""The headers of an answer that a backend gave: what it cost, what is left, and those of the backend's that callers need."""

from api.router.exchange import Headers
from api.router.limits import rate_headers
from commands.admission import Admitted
from commands.ports import UpstreamResponse
from domain.money import format_usd

_PASSED = (b"openai-", b"retry-after", b"x-should-retry")
"""Response headers of a backend that reach the caller, by prefix; all others are its own business."""

_OURS = frozenset({b"openai-organization", b"openai-project"})
"""Of these, what says whose account there it is: the operator's, and none of the callers' business."""


def refusal_headers(backend: str, response: UpstreamResponse) -> Headers:
    """Of a backend's own refusal."""
    return [(b"x-tollhouse-backend", backend.encode()), *_passed(response)]


def plain_headers(admitted: Admitted, backend: str, response: UpstreamResponse, cost: int, offset: int) -> Headers:
    """Of an answer whose completion is in the log at `offset`."""
    return [
        (b"x-tollhouse-backend", backend.encode()),
        (b"x-tollhouse-cost-usd", format_usd(cost).encode()),
        (b"x-tollhouse-position", b"f%d.%d" % (admitted.caller.partition, offset)),
        *_budget_headers(admitted, cost),
        *_passed(response),
    ]


def stream_headers(admitted: Admitted, backend: str, response: UpstreamResponse) -> Headers:
    """Of an answer whose cost is not known yet."""
    return [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
        (b"x-tollhouse-backend", backend.encode()),
        *_budget_headers(admitted, None),
        *_passed(response),
    ]


def _budget_headers(admitted: Admitted, cost: int | None) -> Headers:
    """What was decided: another model, the tightest budget's remainder (plain answers), the clamped output cap, rate limits."""
    headers: Headers = []
    granted = admitted.granted
    if admitted.instead is not None:
        headers.append((b"x-tollhouse-fallback-model", admitted.model.encode()))
    if cost is not None and granted.seen:
        left = min(hold.limit - hold.consumed - hold.held for hold in granted.seen) - cost
        headers.append((b"x-tollhouse-budget-remaining-usd", format_usd(left).encode()))
    if admitted.clamped:
        headers.append((b"x-tollhouse-output-cap", b"%d" % admitted.grant))
    if granted.rates:
        headers += rate_headers(granted.rates)
    return headers


def _passed(response: UpstreamResponse) -> Headers:
    return [(name, value) for name, value in response.headers if name.startswith(_PASSED) and name not in _OURS]
