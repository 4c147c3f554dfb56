"""One authenticated read: what it may see, how new the views must be for it, and how it is answered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, TypeVar

import msgspec
from fastapi import Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from api.read.arrivals import Arrivals
from api.read.deps import ReadDeps
from api.read.entrance import READER
from api.read.readers import Reader
from api.read.shapes import rfc3339
from domain import organization
from domain.errors import Forbidden, NotFound, ViewBehind
from projections.reads.freshness import Position, Standing, parse_position
from projections.reads.usage import Dimension

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """See the module. `position` is what the caller wants the views to have."""

    deps: ReadDeps
    arrivals: Arrivals
    reader: Reader
    position: Position | None

    # -- what it may see

    def platform(self) -> None:
        """For platform admins only; for everybody else there is nothing here (`NotFound`)."""
        if self.reader.org is not None:
            raise NotFound("no such resource")

    def sees(self, org: str) -> None:
        """Raises `NotFound` for an organization that there is not, or that is another's."""
        if self.reader.org not in (None, org) or self.deps.keyring.state(organization.KIND, org, org) is None:
            raise NotFound("no such organization")

    def sees_all_of(self, org: str) -> None:
        """As `sees`; raises `Forbidden` for a service key, which sees its project only."""
        self.sees(org)
        if self.reader.project is not None:
            raise Forbidden("a service key sees the figures of its own project only")

    def own(self, wanted: dict[Dimension, tuple[str, ...]]) -> tuple[tuple[Dimension, tuple[str, ...]], ...]:
        """The filter `wanted`, narrowed to what the reader sees. Raises `NotFound` for a project of others."""
        if self.reader.project is not None:
            if set(wanted.get("project", ())) - {self.reader.project}:
                raise NotFound("no such project")
            wanted = {**wanted, "project": (self.reader.project,)}
        return tuple(wanted.items())

    # -- how new it is

    async def caught_up(self, *views: str) -> None:
        """Waits until `views` have what the caller names. Raises `ViewBehind`."""
        if self.position is not None and not await self.reached(views, [self.position]):
            raise ViewBehind("the view is behind the position asked for; ask again")

    async def reached(self, views: Sequence[str], positions: Sequence[Position]) -> bool:
        """Whether `views` have all of `positions`, now or within the time that a read waits."""
        return await self.arrivals.reached(views, positions, self.deps.patience)

    async def standing(self, *views: str, org: str | None = None) -> Standing:
        """Waits as `caught_up`, and says how complete `views` are: to be asked before they are."""
        looked = await self.ask(self.deps.freshness.look, views, org)
        await self.caught_up(*views)
        return await self.ask(self.deps.freshness.standing, looked)

    # -- asking and answering

    async def ask(self, question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of a synchronous question, asked in a thread."""
        return await run_in_threadpool(question, *args, **kwargs)


def answered(doc: dict[str, Any], standing: Standing) -> Response:
    """A JSON answer that says how complete it is."""
    return Response(msgspec.json.encode({**doc, **completeness(standing)}), media_type="application/json")


def completeness(standing: Standing) -> dict[str, Any]:
    """The two fields that every answer has."""
    return {"as_of": rfc3339(standing.as_of), "lag_ms": standing.lag_ms}


async def _call(request: Request, x_tollhouse_position: Annotated[str | None, Header()] = None) -> Call:
    position = None if x_tollhouse_position is None else parse_position(x_tollhouse_position)
    state = request.app.state
    return Call(state.deps, state.arrivals, request.scope[READER], position)


Reading = Annotated[Call, Depends(_call)]
