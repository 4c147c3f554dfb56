"""`/read/v1/orgs/{org}/audit`: who did what, with before and after; `/read/v1/audit/verify`: the hash chain over all of it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.read.call import Reading, answered
from api.read.shapes import Limit, Params, bad_cursor, cursor_of, rfc3339, told_by
from projections.audit import NAME
from projections.reads.audit import Deed, event_of, states_of

router = APIRouter(prefix="/read/v1", tags=["audit"])


class AuditParams(Params):
    limit: Limit = 100
    cursor: str | None = None


@router.get("/orgs/{org}/audit", summary="Who did what, newest first")
async def audit(call: Reading, org: str, query: Annotated[AuditParams, Query()]) -> Response:
    call.sees_all_of(org)
    before = None if query.cursor is None else _number(query.cursor)
    standing = await call.standing(NAME, org=org)
    found = await call.ask(call.deps.audit.page, org, before, query.limit + 1)
    page, more = found[: query.limit], len(found) > query.limit
    next_cursor = cursor_of(str(page[-1].number)) if more else None
    return answered({"data": [_entry(deed) for deed in page], "next_cursor": next_cursor}, standing)


@router.get("/audit/verify", summary="Check the chain of hashes over every entry")
async def verify(call: Reading) -> Response:
    """`broken_at` is the number of the first entry that does not follow on the one before it."""
    call.platform()
    standing = await call.standing(NAME)
    check = await call.ask(call.deps.audit.verify)
    doc = {"valid": check.broken_at is None, "entries": check.entries, "broken_at": check.broken_at, "head": check.head}
    return answered(doc, standing)


def _entry(deed: Deed) -> dict[str, Any]:
    before, after = states_of(deed)
    return {
        "id": deed.id,
        "number": deed.number,
        "time": rfc3339(deed.time),
        "actor": deed.actor or None,
        "type": deed.type,
        "org": deed.org,
        "stream": deed.stream,
        "version": deed.version,
        "position": f"j{deed.position}",
        "command_id": deed.command_id or None,
        "correlation_id": deed.correlation_id or None,
        "data": event_of(deed).get("data"),
        "before": before,
        "after": after,
        "hash": deed.hash,
    }


def _number(cursor: str) -> int:
    text = told_by(cursor)
    if not text.isdecimal() or len(text) > 18:
        raise bad_cursor()
    return int(text)
