"""Events of an organization, or of all: listed after a cursor, or followed as server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.read.call import Call, Reading, answered
from api.read.readers import resolved
from api.read.shapes import Limit, Params
from domain.errors import NotFound, TollhouseError
from projections import audit, usage
from projections.reads.events import Place, Seen, parse_place

router = APIRouter(tags=["events"])

_VIEWS = (audit.NAME, usage.NAME)
_EVENT_STREAM = "text/event-stream"
_POLL_SECONDS = 0.25
_KEEP_ALIVE = 60  # polls without an event


class EventParams(Params):
    """`after` (or `cursor`): the cursor of an event, to begin after it. A list begins with the first event, a stream with
    the next."""

    after: str | None = None
    cursor: str | None = None
    limit: Limit = 100

    def place(self) -> Place | None:
        """Raises `Invalid`."""
        given = self.after or self.cursor
        return None if given is None else parse_place(given)


@router.get("/read/v1/orgs/{org}/events", summary="Control events and facts of an organization, oldest first")
async def events(
    call: Reading,
    request: Request,
    org: str,
    query: Annotated[EventParams, Query()],
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """With ``Accept: text/event-stream`` they are followed; a stream goes on after ``Last-Event-ID``."""
    call.sees_all_of(org)
    return await _events(call, request, org, query.place(), query.limit, last_event_id)


@router.get("/admin/v1/events", summary="Every event, oldest first")
async def all_events(
    call: Reading,
    request: Request,
    query: Annotated[EventParams, Query()],
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    call.platform()
    return await _events(call, request, None, query.place(), query.limit, last_event_id)


@router.get("/admin/v1/events/{event}", summary="One event")
async def event(call: Reading, event: str) -> Response:
    call.platform()
    standing = await call.standing(*_VIEWS)
    found = await call.ask(call.deps.events.find, event)
    if found is None:
        raise NotFound("no such event")
    return answered(found, standing)


async def _events(
    call: Call, request: Request, org: str | None, place: Place | None, limit: int, last: str | None
) -> Response:
    if _EVENT_STREAM in request.headers.get("accept", ""):
        await call.caught_up(*_VIEWS)
        if last is not None:
            place = parse_place(last)
        if place is None:
            place = await call.ask(_now, call)
        return StreamingResponse(_followed(call, org, place), media_type=_EVENT_STREAM)
    standing = await call.standing(*_VIEWS, org=org)
    found = await call.ask(call.deps.events.after, org, place or Place(), limit)
    next_cursor = str(found[-1].place) if len(found) == limit else None
    return answered({"data": [_shown(seen) for seen in found], "next_cursor": next_cursor}, standing)


def _now(call: Call) -> Place:
    """Behind everything that the views hold."""
    control = call.deps.views[audit.NAME].marks()
    facts = call.deps.views[usage.NAME].marks()
    return Place(control[0].position if 0 in control else 0, {p: mark.offset for p, mark in facts.items()})


async def _followed(call: Call, org: str | None, place: Place) -> AsyncIterator[bytes]:
    """Ends when the process is about to, or when the key is no good any more."""
    quiet = 0
    yield b": following\n\n"
    while not call.deps.ending() and await _still_good(call):
        found: Sequence[Seen] = await call.ask(call.deps.events.after, org, place, 1000)
        for seen in found:
            place = seen.place
            data = msgspec.json.encode(_shown(seen)).decode()
            yield f"id: {place}\nevent: {seen.event['type']}\ndata: {data}\n\n".encode()
        quiet = 0 if found else quiet + 1
        if quiet >= _KEEP_ALIVE:
            quiet = 0
            yield b": still here\n\n"
        if not found:
            await asyncio.sleep(_POLL_SECONDS)


async def _still_good(call: Call) -> bool:
    try:
        await call.deps.refresh()
        return resolved(call.deps, call.reader.hash) is not None
    except TollhouseError:
        return False


def _shown(seen: Seen) -> dict[str, Any]:
    return {**seen.event, "cursor": str(seen.place)}
