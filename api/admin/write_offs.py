"""`/orgs/{org}/requests/{request}/write-off`: giving up on an unconfirmed request."""

from fastapi import APIRouter, Response

from api.admin.call import Caller
from api.admin.shapes import Body, Resource
from commands.handling import Changes, Reply
from commands.write_offs import order_write_off
from domain.write_off import KIND

router = APIRouter(prefix="/admin/v1/orgs/{org}/requests", tags=["requests"])


class WriteOffBody(Body):
    reason: str


class WriteOffOut(Resource):
    """`attempts`: those whose hold will be released, in a moment."""

    org: str
    attempts: tuple[str, ...]
    reason: str


@router.post("/{request}/write-off", response_model=WriteOffOut)
async def write_off(org: str, request: str, body: WriteOffBody, call: Caller) -> Response:
    call.may("budgets", org)

    def plan(changes: Changes) -> Reply:
        order = order_write_off(changes, call.deps.balances(), org, request, body.reason)
        version = changes.version(org, KIND, order.attempts[0])
        shown = WriteOffOut(id=order.request, version=version, org=org, attempts=order.attempts, reason=order.reason)
        return Reply(shown.model_dump_json().encode(), 200, version)

    return await call.command(plan)
