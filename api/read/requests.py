"""`/read/v1/orgs/{org}/requests`, `/read/v1/requests/{id}` and `/v1/requests/{id}`: requests one by one."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.read.call import Call, Reading, answered
from api.read.explaining import explanation, identity
from api.read.exports import exported
from api.read.shapes import Format, Limit, Only, bad_cursor, cursor_of, told_by
from domain.errors import NotFound
from domain.money import format_usd
from projections.reads.explained import explain
from projections.reads.requests import Place, RequestLine, StoredFact, place_of
from projections.reads.usage import Filter
from projections.usage import NAME

router = APIRouter(tags=["requests"])

COLUMNS = (
    "id",
    "attempt",
    "time",
    "org",
    "project",
    "user",
    "key",
    "model",
    "backend",
    "outcome",
    "code",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "estimated",
    "latency_ms",
)
"""Of a row, and of the CSV export. Stored format."""


class RequestParams(Only):
    code: str | None = None
    limit: Limit = 100
    cursor: str | None = None
    format: Format = "json"


@router.get("/read/v1/orgs/{org}/requests", summary="Requests, newest first")
async def requests(call: Reading, org: str, query: Annotated[RequestParams, Query()]) -> Response:
    """A row per attempt, and per refusal. Exports have all of them."""
    call.sees(org)
    since, until = query.moments()
    wanted = Filter(org=org, since=since, until=until, only=call.own(query.only()), code=query.code)
    before = None if query.cursor is None else _place(query.cursor)
    standing = await call.standing(NAME, org=org)
    if query.format != "json":
        rows = _rows(call.deps.requests.stream(wanted))
        return await call.ask(exported, query.format, f"requests-{org}", COLUMNS, rows, standing)
    found = await call.ask(call.deps.requests.page, wanted, before, query.limit + 1)
    page, more = found[: query.limit], len(found) > query.limit
    next_cursor = _cursor(page[-1]) if more else None
    return answered({"data": [row(line) for line in page], "next_cursor": next_cursor}, standing)


@router.get("/read/v1/requests/{id}", summary="The whole decision about one request")
@router.get("/v1/requests/{id}", summary="What became of a request, asked with the service key that sent it")
async def request(call: Reading, id: str) -> Response:
    """Budgets and balances seen, holds, price version, backends tried, times, cost, the facts, and why it was refused."""
    await call.caught_up(NAME)
    lines = await _found(call, id)
    standing = await call.standing(NAME, org=lines[0].org)
    facts: Sequence[StoredFact] = []
    for request_id in dict.fromkeys(line.request for line in lines):
        facts = [*facts, *await call.ask(call.deps.requests.facts, lines[0].org, request_id)]
    return answered(explanation(id, [explain(line, facts) for line in lines]), standing)


async def _found(call: Call, id: str) -> Sequence[RequestLine]:
    """The lines that the reader sees. One that is on its way from the log to the view is waited for."""
    lines = await _visible(call, id)
    if not lines and await call.reached([NAME], await call.ask(call.deps.freshness.ends, call.reader.org)):
        lines = await _visible(call, id)
    if not lines:
        raise NotFound("no such request")
    return lines


async def _visible(call: Call, id: str) -> Sequence[RequestLine]:
    lines = await call.ask(call.deps.requests.find, id, call.reader.org)
    if call.reader.project is None:
        return lines
    return [line for line in lines if line.project == call.reader.project]


def row(line: RequestLine) -> dict[str, Any]:
    """A line as it is shown in lists, and in every export: the columns, and `count`, how many refusals it stands for."""
    usage = line.usage
    return {
        **identity(line),
        "backend": line.backend,
        "outcome": line.outcome,
        "code": line.code,
        "input_tokens": usage.all_input,
        "output_tokens": usage.all_output,
        "cost_usd": format_usd(line.cost),
        "estimated": line.estimated,
        "latency_ms": line.latency_ms,
        "count": line.count,
    }


def _rows(lines: Iterator[Sequence[RequestLine]]) -> Iterator[list[dict[str, Any]]]:
    return ([row(line) for line in some] for some in lines)


def _cursor(line: RequestLine) -> str:
    place = place_of(line)
    return cursor_of(f"{place.micros} {place.kind} {place.attempt}")


def _place(cursor: str) -> Place:
    micros, _, rest = told_by(cursor).partition(" ")
    kind, _, attempt = rest.partition(" ")
    if not (micros.isdecimal() and len(micros) <= 18 and kind in ("0", "1") and attempt):
        raise bad_cursor()
    return Place(int(micros), attempt, int(kind))
