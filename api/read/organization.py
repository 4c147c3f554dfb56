"""OpenAI's shapes: `/v1/organization/usage/completions`, `/v1/organization/usage/embeddings`, `/v1/organization/costs`.

Buckets are those of the zone asked for (UTC without one); the first begins at `start_time`, the last ends at `end_time`, so
that a sum over all pages is exact. Dimensions that were not grouped by, and those that there are not here, are null.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from api.read.call import Call, Reading, answered
from api.read.exports import exported, flat
from api.read.organization_results import COMPLETIONS, COSTS, EMBEDDINGS, Shape
from api.read.shapes import Format, Many, Params, bad_cursor, cursor_of, listed, told_by
from domain.errors import Invalid, invalid
from domain.period import parse_timezone
from projections.reads.buckets import Width, walk
from projections.reads.usage import Dimension, Filter, UsageQuery, UsageRow
from projections.usage import NAME

router = APIRouter(prefix="/v1/organization", tags=["OpenAI's shapes"])

Organization = Annotated[str | None, Header(alias="OpenAI-Organization")]
Second = Annotated[int, Field(ge=0, lt=2**32)]

_WIDTHS: dict[str, tuple[Width, int, int]] = {"1m": ("minute", 60, 1440), "1h": ("hour", 24, 168), "1d": ("day", 7, 31)}
"""Name to width, and the default and largest number of buckets on a page."""

_MOST_COSTS = 180


class Buckets(Params):
    """[`start_time`, `end_time`) in Unix seconds; without an end, to the bucket of now."""

    start_time: Second
    end_time: Second | None = None
    project_ids: Many
    api_key_ids: Many
    group_by: Many
    limit: int | None = None
    page: str | None = None
    timezone: str = "UTC"
    format: Format = "json"

    def only(self) -> dict[Dimension, tuple[str, ...]]:
        named: dict[Dimension, list[str]] = {"project": self.project_ids, "key": self.api_key_ids}
        return {name: listed(values) for name, values in named.items() if values}

    def size(self, default: int, most: int) -> int:
        """How many buckets a page has. Raises `Invalid`."""
        if self.limit is None:
            return default
        if not 1 <= self.limit <= most:
            raise invalid("limit", f"must be 1 to {most} for this bucket_width; got {self.limit}")
        return self.limit

    def first(self) -> int:
        """Where the page begins. Raises `Invalid`."""
        if self.end_time is not None and self.end_time <= self.start_time:
            raise invalid("end_time", "must be after start_time")
        if self.page is None:
            return self.start_time
        at = told_by(self.page.removeprefix("page_"), "page")
        if not at.isdecimal() or not self.start_time < int(at) < (self.end_time or 2**32):
            raise bad_cursor("page")
        return int(at)

    def buckets(self, width: Width, now: datetime) -> Iterator[tuple[int, int]]:
        """From the page's first on."""
        found = walk(width, parse_timezone(self.timezone).key, self.first(), self.end_time)
        last = now.timestamp() if self.end_time is None else self.end_time
        return takewhile(lambda bucket: bucket[0] <= last, found)


class Usage(Buckets):
    """`batch`: nothing here ever is."""

    bucket_width: Literal["1m", "1h", "1d"] = "1d"
    user_ids: Many
    models: Many
    batch: bool | None = None

    def only(self) -> dict[Dimension, tuple[str, ...]]:
        named: dict[Dimension, list[str]] = {"user": self.user_ids, "model": self.models}
        return super().only() | {name: listed(values) for name, values in named.items() if values}


class Costs(Buckets):
    bucket_width: Literal["1d"] = "1d"


@router.get("/usage/completions", summary="Tokens and requests of everything that generates")
async def usage_completions(call: Reading, query: Annotated[Usage, Query()], org: Organization = None) -> Response:
    return await _usage(call, query, org, COMPLETIONS)


@router.get("/usage/embeddings", summary="Tokens and requests of embeddings")
async def usage_embeddings(call: Reading, query: Annotated[Usage, Query()], org: Organization = None) -> Response:
    return await _usage(call, query, org, EMBEDDINGS)


@router.get("/costs", summary="Spend per day; a line item is a model")
async def costs(call: Reading, query: Annotated[Costs, Query()], org: Organization = None) -> Response:
    return await _answer(call, query, org, COSTS, "day", query.size(7, _MOST_COSTS))


async def _usage(call: Call, query: Usage, org: str | None, shape: Shape) -> Response:
    width, default, most = _WIDTHS[query.bucket_width]
    return await _answer(call, query, org, shape, width, query.size(default, most), nothing=query.batch is True)


async def _answer(
    call: Call, query: Buckets, header: str | None, shape: Shape, width: Width, size: int, *, nothing: bool = False
) -> Response:
    org = organization_of(call, header)
    dimensions = shape.dimensions(listed(query.group_by))
    only = call.own(query.only())
    whole = query.format != "json"
    found = query.buckets(width, call.deps.clock())
    buckets = list(found if whole else islice(found, size + 1))
    page = buckets if whole else buckets[:size]
    standing = await call.standing(NAME, org=org)
    rows: list[UsageRow] = []
    if page and not nothing:
        span = Filter(org=org, since=_moment(page[0][0]), until=_moment(page[-1][1]), only=only, kind=shape.kind)
        question = UsageQuery(filter=span, width=width, zone=query.timezone, group_by=tuple(dimensions.values()))
        rows = [row for row in await call.ask(call.deps.usages.totals, question) if row.totals.requests]
    if whole:
        lines = [{**_bounds(row), **shape.result(row, dimensions)} for row in rows]
        if query.format == "csv":
            lines = [flat(line) for line in lines]
        return await call.ask(exported, query.format, f"{shape.name}-{org}", shape.columns(), [lines], standing)
    results: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        results.setdefault(_bounds(row)["start_time"], []).append(shape.result(row, dimensions))
    data = [
        {"object": "bucket", "start_time": start, "end_time": end, "results": results.get(start, [])}
        for start, end in page
    ]
    more = len(buckets) > size
    next_page = f"page_{cursor_of(str(buckets[size][0]))}" if more else None
    return answered({"object": "page", "data": data, "has_more": more, "next_page": next_page}, standing)


def organization_of(call: Call, header: str | None) -> str:
    """The organization of the key; a platform admin names it. Raises `Invalid` (``missing_organization``), `NotFound`."""
    org = header or call.reader.org
    if org is None:
        missing = invalid("OpenAI-Organization", "must name the organization: the key is a platform admin's")
        raise Invalid(*missing.errors, code="missing_organization")
    call.sees(org)
    return org


def _bounds(row: UsageRow) -> dict[str, int]:
    assert row.start is not None  # both ends were asked for
    assert row.end is not None
    return {"start_time": int(row.start.timestamp()), "end_time": int(row.end.timestamp())}


def _moment(second: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
