"""The way of a well-formed call to its endpoint, past FastAPI: finding the route and solving dependencies is most of what a short
call costs.

FastAPI says what there is, checks and refuses. A call with anything unusual in it (a query, a body that is not JSON or not of
the right shape, a path that is none) is FastAPI's from the beginning, and so is every call of an endpoint that asks for what is
not known here. So a call is taken here only where FastAPI would have taken the same from it.
"""

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from fastapi import FastAPI, Request, Response
from fastapi.params import Depends, Header, Query
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from starlette.types import Receive, Scope, Send

from api.admin.entrance import BODY, REQUEST_ID
from api.problems import bug, problem_of
from domain.errors import TollhouseError

_Key = tuple[str, int, tuple[str, ...]]
"""Method, number of parameters, and the literal parts of a path."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is being taken: `path` has the parameters of its path."""

    scope: Scope
    path: Mapping[str, str]
    body: bytes


Take = Callable[[Call], Awaitable[Any]]
"""What a parameter is in a call. Raises `Unusual`."""


class Unusual(Exception):
    """This call, or this endpoint, is FastAPI's."""


@dataclass(frozen=True, slots=True)
class _Route:
    endpoint: Callable[..., Awaitable[Response]]
    parameters: Sequence[str]
    takes: Mapping[str, Take]

    async def answer(self, scope: Scope, values: Sequence[str]) -> Response:
        call = Call(scope, dict(zip(self.parameters, values, strict=True)), scope[BODY])
        try:
            arguments = {name: await take(call) for name, take in self.takes.items()}
            return await self.endpoint(**arguments)
        except Unusual:
            raise
        except TollhouseError as error:
            return problem_of(error, scope[REQUEST_ID])
        except Exception as error:  # noqa: BLE001  # as FastAPI does it: the caller is told, and the log
            return bug(scope, error, scope[REQUEST_ID])


class Express:
    """ASGI application over `app`, to be used behind the `Entrance`."""

    def __init__(self, app: FastAPI, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._routes: dict[_Key, _Route] = {}
        for route in routes:
            try:
                takes = _takes(route.endpoint, route.path)
            except Unusual:
                continue
            literal, parameters = _split(route.path)
            names = [part.strip("{}") for part in parameters]
            for method in route.methods or ():
                self._routes[method, len(names), literal] = _Route(route.endpoint, names, takes)

    def knows(self, route: APIRoute) -> bool:
        """Whether well-formed calls of a route are taken here."""
        literal, parameters = _split(route.path)
        found = [self._routes.get((method, len(parameters), literal)) for method in route.methods or ()]
        return all(taken is not None and taken.endpoint is route.endpoint for taken in found)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        literal, values = _split(scope["path"])
        route = self._routes.get((scope["method"], len(values), literal))
        if route is not None and all(values) and not scope["query_string"]:
            scope["app"] = self._app
            try:
                answer = await route.answer(scope, values)
            except Unusual:
                pass
            else:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _split(path: str) -> tuple[tuple[str, ...], Sequence[str]]:
    """Literal parts and parameters: behind ``/admin/v1`` they take turns."""
    parts = path.split("/")
    return tuple(parts[3::2]), parts[4::2]


def _takes(endpoint: Callable[..., Any], path: str) -> Mapping[str, Take]:
    """How to take each parameter of an endpoint. Raises `Unusual`."""
    literal, parameters = _split(path)
    if get_type_hints(endpoint).get("return") is not Response or any("{" in part for part in literal):
        raise Unusual
    if not all(part.startswith("{") for part in parameters):
        raise Unusual
    bodies: list[str] = []
    takes = _parameters(endpoint, path, bodies)
    if len(bodies) > 1:
        raise Unusual  # each has a place of its own in the body then
    return takes


def _parameters(call: Callable[..., Any], path: str, bodies: list[str]) -> Mapping[str, Take]:
    if not inspect.iscoroutinefunction(call):
        raise Unusual  # FastAPI calls it in a thread
    hints = get_type_hints(call, include_extras=True)
    found = inspect.signature(call).parameters
    return {name: _take(name, hints[name], parameter.default, path, bodies) for name, parameter in found.items()}


def _take(name: str, hint: Any, default: Any, path: str, bodies: list[str]) -> Take:
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    mark = marks[0] if len(marks) == 1 else None
    if kind is Request:
        return _request
    if isinstance(mark, Depends) and mark.dependency is not None:
        return _answer_of(mark.dependency, path, bodies)
    if isinstance(mark, Header) and mark.alias is None and kind == (str | None):
        return _header(name, default)
    if kind is str and not marks and f"{{{name}}}" in path:
        return _part(name)
    if isinstance(mark, Query) or (kind in (bool, int, str) and not marks):
        return _query(default)
    if not marks and any(inspect.isclass(part) and issubclass(part, BaseModel) for part in (kind, *get_args(kind))):
        bodies.append(name)
        return _body(TypeAdapter(kind), default)
    raise Unusual


async def _request(call: Call) -> Request:
    return Request(call.scope)


def _answer_of(dependency: Callable[..., Any], path: str, bodies: list[str]) -> Take:
    takes = _parameters(dependency, path, bodies)

    async def take(call: Call) -> Any:
        return await dependency(**{name: await each(call) for name, each in takes.items()})

    return take


def _header(name: str, default: Any) -> Take:
    wanted = name.replace("_", "-").encode()

    async def take(call: Call) -> Any:
        found = [value for header, value in call.scope["headers"] if header == wanted]
        if len(found) > 1:
            raise Unusual
        return found[0].decode("latin-1") if found else default

    return take


def _part(name: str) -> Take:
    async def take(call: Call) -> Any:
        return call.path[name]

    return take


def _query(default: Any) -> Take:
    if default is inspect.Parameter.empty:
        raise Unusual

    async def take(call: Call) -> Any:  # noqa: ARG001  # there is no query
        return default

    return take


def _body(shape: TypeAdapter[Any], default: Any) -> Take:
    async def take(call: Call) -> Any:
        if not call.body:
            if default is inspect.Parameter.empty:
                raise Unusual
            return default
        if (b"content-type", b"application/json") not in call.scope["headers"]:
            raise Unusual
        try:
            return shape.validate_python(json.loads(call.body))
        except (ValueError, RecursionError):
            raise Unusual from None

    return take
