"""World: which models of an organization were the slowest of the last hours. The template of a service that reads.

A service of your own has this shape: a pure projection (`projections.world`), its tables (`infra.adapters.row_world`), this
application, and a composition root that feeds the one and serves the other (`cli.world`).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query
from starlette.concurrency import run_in_threadpool

from api.framework import NO_TELEMETRY, answer_problems
from domain.errors import NotFound, Unauthenticated
from projections.world import ModelPace, Paces

MOST_HOURS = 24
MOST_MODELS = 100

Sees = Callable[[str], Awaitable[Callable[[str], bool]]]
"""Of a key: which organizations it may read about. Raises `Unauthenticated` for one that is not ours, `Unavailable`."""


@dataclass(frozen=True, slots=True)
class WorldDeps:
    """What the service stands on. `lag`: records of this process's partitions that the view lacks."""

    paces: Paces
    sees: Sees
    clock: Callable[[], datetime]
    lag: Callable[[], int]


def create_app(deps: WorldDeps) -> FastAPI:
    """Serves ``GET /world/v1/orgs/{org}/slowest-models``."""
    app = FastAPI(
        title="Tollhouse World",
        version="1",
        openapi_url="/world/v1/openapi.json",
        docs_url="/world/v1/docs",
        telemetry=NO_TELEMETRY,
    )

    @app.get("/world/v1/orgs/{org}/slowest-models", summary="The slowest models of the last hours")
    async def slowest_models(
        org: str,
        authorization: Annotated[str, Header()] = "",
        hours: Annotated[int, Query(ge=1, le=MOST_HOURS)] = 1,
        limit: Annotated[int, Query(ge=1, le=MOST_MODELS)] = 10,
    ) -> dict[str, Any]:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("no valid key: send Authorization: Bearer th_ak_…")
        if not (await deps.sees(key.strip()))(org):
            raise NotFound("no such organization")
        since, lag = deps.clock() - timedelta(hours=hours), deps.lag()
        found = await run_in_threadpool(deps.paces.slowest, org, since, limit)
        return {"data": _shown(found), "since": since.isoformat().replace("+00:00", "Z"), "lag_events": lag}

    answer_problems(app)
    return app


def _shown(found: Sequence[ModelPace]) -> list[dict[str, Any]]:
    return [
        {"model": pace.model, "requests": pace.requests, "mean_ms": pace.mean_ms, "slowest_ms": pace.slowest_ms}
        for pace in found
    ]
