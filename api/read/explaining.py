"""How the whole decision about a request is shown."""

from collections.abc import Sequence
from typing import Any

import msgspec

from api.read.shapes import rfc3339
from domain.facts import BudgetHold
from domain.money import format_usd
from projections.reads.explained import Explained, Told
from projections.reads.requests import RequestLine


def explanation(asked: str, attempts: Sequence[Explained]) -> dict[str, Any]:
    """The request with all its attempts, in order. What became of the last one is said at the top; `cost_usd` is the sum.

    `folded`: the id asked for is one of several equal refusals that share a line.
    """
    last = attempts[-1]
    told = [fact for attempt in attempts for fact in attempt.told]
    end = max(told, key=lambda fact: fact.offset, default=None)
    return {
        **_attempt(last),
        "id": asked if last.line.count > 1 else last.line.request,
        "folded": last.line.count > 1,
        "cost_usd": format_usd(sum(attempt.line.cost for attempt in attempts)),
        "attempts": [_attempt(attempt) for attempt in attempts],
        "position": None if end is None else f"f{end.partition}.{end.offset}",
    }


def identity(line: RequestLine) -> dict[str, Any]:
    """What a line is about, as it is shown everywhere."""
    return {
        "id": line.request,
        "attempt": line.attempt,
        "time": rfc3339(line.time),
        "org": line.org,
        "project": line.project,
        "user": line.user,
        "key": line.key,
        "model": line.model,
    }


def _attempt(found: Explained) -> dict[str, Any]:
    line = found.line
    usage = line.usage
    return {
        **identity(line),
        "endpoint": line.endpoint or None,
        "stream": line.stream,
        "outcome": line.outcome,
        "code": line.code,
        "reason": found.reason,
        "status": line.status or None,
        "count": line.count,
        "input_tokens": usage.all_input,
        "cached_input_tokens": usage.cached_input,
        "cache_write_tokens": usage.cache_write,
        "audio_input_tokens": usage.audio_input,
        "image_input_tokens": usage.image_input,
        "output_tokens": usage.all_output,
        "reasoning_tokens": usage.reasoning,
        "audio_output_tokens": usage.audio_output,
        "price": line.price,
        "hold_usd": format_usd(line.hold),
        "held_usd": format_usd(line.hold if line.outcome == "open" else 0),
        "worst_usd": format_usd(found.worst),
        "cost_usd": format_usd(line.cost),
        "estimated": line.estimated,
        "overrun": line.overrun,
        "abandoned": line.abandoned,
        "backend": line.backend,
        "tries": [msgspec.structs.asdict(one) for one in found.tries],
        "latency_ms": line.latency_ms,
        "first_token_ms": line.first_token_ms,
        "confirmed_by": found.source,
        "budgets": [_budget(hold, found) for hold in found.budgets],
        "refused_by": found.refused_by,
        **_admission(found),
        "facts": [_fact(fact) for fact in found.told],
    }


def _admission(found: Explained) -> dict[str, Any]:
    if found.admission is None:
        return {"admission": None}
    admission = msgspec.structs.asdict(found.admission)
    return {"admission": {**admission, "deadline": rfc3339(found.admission.deadline)}}


def _budget(hold: BudgetHold, found: Explained) -> dict[str, Any]:
    """A budget as the gate saw it before the request: what was consumed and held by others."""
    return {
        "id": hold.budget,
        "bucket": hold.bucket,
        "until": rfc3339(hold.until),
        "mode": hold.mode,
        "limit_usd": format_usd(hold.limit),
        "limit_version": hold.limit_version,
        "consumed_usd": format_usd(hold.consumed),
        "held_usd": format_usd(hold.held),
        "remaining_usd": format_usd(hold.limit - hold.consumed - hold.held),
        "refused": hold.budget == found.refused_by,
    }


def _fact(fact: Told) -> dict[str, Any]:
    return {
        "id": fact.id,
        "type": fact.type,
        "occurred_at": rfc3339(fact.occurred_at),
        "position": f"f{fact.partition}.{fact.offset}",
    }
