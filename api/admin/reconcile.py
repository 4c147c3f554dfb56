"""`/reconcile`: a backend's own, complete record of what it served ends what is unconfirmed."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, StrictStr

from api.admin.call import Caller
from api.admin.shapes import Body
from commands.reconcile import read_served

router = APIRouter(prefix="/admin/v1/reconcile", tags=["requests"])


class ReconcileBody(Body):
    """`records`: each with `request_id`, `prompt_tokens` and `completion_tokens`; `backend` None: the record of all."""

    records: list[dict[str, Any]]
    backend: StrictStr | None = None


class ReconcileOut(BaseModel):
    """How many unconfirmed attempts were completed, how many proved not served, and how many are left because the record may
    not be their backend's."""

    completed: int
    not_served: int
    left: int


@router.post("")
async def reconcile(body: ReconcileBody, call: Caller) -> ReconcileOut:
    call.platform()
    done = await call.deps.reconciliation().run(read_served(body.records), body.backend)
    return ReconcileOut(completed=done.completed, not_served=done.not_served, left=done.left)
