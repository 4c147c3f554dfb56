"""The read API as an ASGI application."""

from fastapi import FastAPI

from api.framework import NO_TELEMETRY
from api.read import audit, budgets, events, operators, organization, requests, usage
from api.read.arrivals import Arrivals
from api.read.deps import ReadDeps
from api.read.entrance import Entrance
from api.read.errors import answer_errors
from api.read.operations import Operations

OPENAPI = "/read/v1/openapi.json"
DOCS = "/read/v1/docs"

_ROUTERS = (budgets, usage, requests, audit, events, organization, operators)


def create_app(deps: ReadDeps) -> FastAPI:
    """Serves ``/read/v1/*``, ``/v1/organization/*``, ``/v1/requests/{id}``, and of ``/admin/v1`` what concerns projections.
    One event loop must both serve it and feed `deps.keyring`."""
    app = FastAPI(
        title="Tollhouse read API",
        version="1",
        openapi_url=OPENAPI,
        docs_url=DOCS,
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    app.state.deps = deps
    app.state.arrivals = Arrivals(deps.freshness)
    app.state.operations = Operations(deps.new_id)
    answer_errors(app)
    for module in _ROUTERS:
        app.include_router(module.router)
    app.add_middleware(Entrance, deps=deps, public=frozenset((OPENAPI, DOCS)))
    return app
