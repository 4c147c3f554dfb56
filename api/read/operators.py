"""What operators do with the projections: see how far they are, rebuild and verify them, and free what is parked."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from api.read.call import Call, Reading
from api.read.operations import Operations, Update
from api.read.shapes import Params, rfc3339
from domain.errors import NotFound
from projections.ports import Parked
from projections.rebuild import Verification

router = APIRouter(prefix="/admin/v1", tags=["projections"])

ALL = "all"
"""In place of a projection's name: every one, one after the other."""


class Dry(Params):
    dry_run: bool = False


@router.get("/projections", summary="Every projection: version, watermark, lag")
async def projections(call: Reading) -> Response:
    call.platform()
    return _json({"data": await call.ask(_projections, call), "next_cursor": None})


@router.post("/projections/{name}/rebuild", status_code=202, summary="Build anew beside the live one, and switch")
async def rebuild(call: Reading, request: Request, name: str) -> Response:
    return _started(call, request, name, "rebuild")


@router.post("/projections/{name}/verify", status_code=202, summary="Build anew aside, and compare")
async def verify(call: Reading, request: Request, name: str) -> Response:
    return _started(call, request, name, "verify")


@router.get("/operations/{id}", summary="How far a long work is, or what came of it")
async def operation(call: Reading, request: Request, id: str) -> Response:
    call.platform()
    return _json(_operations(request).get(id).document())


@router.get("/parked", summary="Events that a projection could not take in, and those that wait behind them")
async def parked(call: Reading) -> Response:
    call.platform()
    found = await call.ask(call.deps.parking.parked)
    return _json({"data": [_parked(one) for one in found], "next_cursor": None})


@router.get("/parked/{id}", summary="One parked event, with its bytes")
async def one_parked(call: Reading, id: str) -> Response:
    call.platform()
    found = await call.ask(call.deps.parking.get, id)
    return _json({**_parked(found), "body": found.record.value.decode(errors="replace")})


@router.post("/parked/{id}/retry", summary="Hand it to its projection again, and what waits behind it")
async def retry(call: Reading, id: str, query: Annotated[Dry, Query()]) -> Response:
    call.platform()
    found = await call.ask(call.deps.parking.get, id)
    if query.dry_run:
        return _json(_parked(found))
    released = await call.ask(call.deps.views[found.projection].retry, id)
    return _json({"id": id, "released": released})


@router.post("/parked/{id}/drop", summary="Go on without it, now and in every rebuild")
async def drop(call: Reading, id: str, query: Annotated[Dry, Query()]) -> Response:
    call.platform()
    found = await call.ask(call.deps.parking.get, id)
    if query.dry_run:
        return _json(_parked(found))
    await call.ask(call.deps.views[found.projection].drop, id)
    return _json({"id": id, "dropped": True})


def _projections(call: Call) -> list[dict[str, Any]]:
    deps = call.deps
    failing = deps.failing()
    rows = []
    for name, view in deps.views.items():
        marks = view.marks()
        rows.append(
            {
                "name": name,
                "version": deps.live(name),
                "topic": view.topic,
                "watermark": {str(partition): mark.offset for partition, mark in sorted(marks.items())},
                "events": sum(mark.events for mark in marks.values()),
                "lag": deps.freshness.lag(name),
                "parked": len(deps.parking.parked(name)),
                "status": "failing" if failing.get(name) else "running",
                "error": failing.get(name),
            }
        )
    return rows


def _started(call: Call, request: Request, name: str, what: str) -> Response:
    call.platform()
    rebuilder = call.deps.rebuilder
    if name not in (*rebuilder.names, ALL):
        raise NotFound(f"no projection {name!r:.80}; there are {', '.join(rebuilder.names)}")
    run = rebuilder.rebuild if what == "rebuild" else rebuilder.verify

    def one(update: Update) -> dict[str, Any]:
        return _verification(run(name, update))

    def every(update: Update) -> dict[str, Any]:
        rows = [_verification(run(each, update)) for each in rebuilder.names]
        return {"equal": all(row["equal"] for row in rows), "data": rows}

    started = _operations(request).start(f"{what} {name}", every if name == ALL else one)
    return _json({"operation": started.id}, 202)


def _operations(request: Request) -> Operations:
    found: Operations = request.app.state.operations
    return found


def _verification(found: Verification) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(found, str_keys=True)
    return {**row, "finished_at": rfc3339(found.finished_at)}


def _parked(found: Parked) -> dict[str, Any]:
    return {
        "id": found.id,
        "projection": found.projection,
        "org": found.org,
        "type": found.type,
        "partition": found.record.partition,
        "offset": found.record.offset,
        "error": found.error,
        "parked_at": rfc3339(found.parked_at),
    }


def _json(doc: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(doc), status, media_type="application/json")
