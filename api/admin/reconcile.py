"""`/reconcile`: a backend's own, complete record of what it served ends what is unconfirmed."""

from typing import Any

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, StrictStr

from api.admin.call import Caller
from api.admin.shapes import Body
from commands.reconcile import read_served

router = APIRouter(prefix="/admin/v1/reconcile", tags=["requests"])


class ReconcileBody(Body):
    """`records`: each with `request_id`, `prompt_tokens` and `completion_tokens`; `backend` names whose record it is, one or
    several, None: of all; `as_of`: when the record was complete, None: when the backend was at nothing any more."""

    records: list[dict[str, Any]]
    backend: StrictStr | list[StrictStr] | None = None
    as_of: AwareDatetime | None = None


class ReconcileOut(BaseModel):
    """How many unconfirmed attempts were completed, how many proved not served, and how many are left because the record may
    not be their backend's, or be older than their end."""

    completed: int
    not_served: int
    left: int


@router.post("")
async def reconcile(body: ReconcileBody, call: Caller) -> ReconcileOut:
    call.platform()
    named = [body.backend] if isinstance(body.backend, str) else body.backend or []
    done = await call.deps.reconciliation().run(read_served(body.records), named, body.as_of)
    return ReconcileOut(completed=done.completed, not_served=done.not_served, left=done.left)
