"""`/read/v1/orgs/{org}/usage`: requests, tokens, cost and times, added up per bucket and group."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.read.call import Reading, answered
from api.read.exports import exported, flat
from api.read.shapes import Format, Many, Only, listed, rfc3339
from domain.errors import invalid
from domain.money import format_usd
from projections.reads.buckets import Width
from projections.reads.usage import DIMENSIONS, Dimension, Filter, Percentiles, Totals, UsageQuery, UsageRow
from projections.usage import NAME

router = APIRouter(prefix="/read/v1/orgs/{org}/usage", tags=["usage"])


class UsageParams(Only):
    """`group_by`: project, user, key, model, backend, outcome; several with commas."""

    bucket: Width = "day"
    group_by: Many
    format: Format = "json"

    def groups(self) -> tuple[Dimension, ...]:
        """Raises `Invalid`."""
        names = listed(self.group_by)
        for name in names:
            if name not in DIMENSIONS:
                raise invalid("group_by", f"must be of {', '.join(DIMENSIONS)}; got {name!r:.40}")
        return tuple(name for name in DIMENSIONS if name in names)


@router.get("", summary="Usage and cost")
async def usage(call: Reading, org: str, query: Annotated[UsageParams, Query()]) -> Response:
    """Rows where there is anything to say, by time and group. A request belongs to the time of its admission; `requests`
    are the completed and the unconfirmed; `input_tokens` and `output_tokens` include their special classes;
    `estimated_usd` is the part of `cost_usd` that is holds of unconfirmed requests."""
    call.sees(org)
    since, until = query.moments()
    groups = query.groups()
    wanted = Filter(org=org, since=since, until=until, only=call.own(query.only()))
    question = UsageQuery(filter=wanted, width=query.bucket, zone=query.zone(), group_by=groups)
    standing = await call.standing(NAME, org=org)
    rows = [shown(row, groups) for row in await call.ask(call.deps.usages.totals, question)]
    if query.format != "json":
        columns = list(flat(shown(_EMPTY, groups)))
        lines = [flat(row) for row in rows] if query.format == "csv" else rows
        return await call.ask(exported, query.format, f"usage-{org}", columns, [lines], standing)
    return answered({"data": rows, "next_cursor": None, "timezone": query.zone()}, standing)


def shown(row: UsageRow, groups: Sequence[Dimension]) -> dict[str, Any]:
    """A row as it is shown."""
    totals = row.totals
    return {
        "start": rfc3339(row.start),
        "end": rfc3339(row.end),
        **dict(zip(groups, row.group or (None,) * len(groups), strict=True)),
        "requests": totals.requests,
        "denied": totals.denied,
        "failed": totals.failed,
        "unconfirmed": totals.unconfirmed,
        "open": totals.open,
        "written_off": totals.written_off,
        "void": totals.void,
        "input_tokens": totals.all_input,
        "cached_input_tokens": totals.cached_input,
        "cache_write_tokens": totals.cache_write,
        "audio_input_tokens": totals.audio_input,
        "image_input_tokens": totals.image_input,
        "output_tokens": totals.all_output,
        "reasoning_tokens": totals.reasoning,
        "audio_output_tokens": totals.audio_output,
        "cost_usd": format_usd(totals.cost),
        "estimated_usd": format_usd(totals.estimated),
        "latency_ms": _percentiles(row.latency_ms),
        "first_token_ms": _percentiles(row.first_token_ms),
    }


def _percentiles(found: Percentiles) -> dict[str, float | None]:
    return {"p50": found.p50, "p95": found.p95, "p99": found.p99}


_NEVER = Percentiles(None, None, None)
_EMPTY = UsageRow(start=None, end=None, group=(), totals=Totals(), latency_ms=_NEVER, first_token_ms=_NEVER)
