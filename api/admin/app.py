"""The command API as an ASGI application."""

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from api.admin import (
    admin_keys,
    backends,
    budgets,
    keys,
    models,
    orgs,
    prices,
    projects,
    reconcile,
    users,
    write_offs,
)
from api.admin.call import AdminDeps
from api.admin.entrance import Entrance
from api.admin.express import Express
from api.framework import NO_TELEMETRY, answer_problems
from domain.ids import made_id, uuid7

OPENAPI = "/admin/v1/openapi.json"
DOCS = "/admin/v1/docs"

_ROUTERS = (orgs, projects, users, keys, admin_keys, budgets, backends, models, prices, write_offs, reconcile)


def create_app(deps: AdminDeps) -> ASGIApp:
    """The application: every path begins with ``/admin/v1``, every error is a problem."""
    app = FastAPI(
        title="Tollhouse command API",
        version="1",
        openapi_url=OPENAPI,
        docs_url=DOCS,
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    app.state.deps = deps
    answer_problems(app)
    routes: list[APIRoute] = []
    for module in _ROUTERS:
        app.include_router(module.router)
        routes += [route for route in module.router.routes if isinstance(route, APIRoute)]

    def new_id() -> str:
        return made_id("req", uuid7(int(deps.clock().timestamp() * 1000), deps.secrets.lot(74)))

    return Entrance(
        Express(app, routes),
        directory=deps.directory,
        secrets=deps.secrets,
        new_id=new_id,
        max_body=deps.max_body,
        public=frozenset((OPENAPI, DOCS)),
    )
