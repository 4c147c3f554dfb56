"""Errors as RFC 9457 problems: the one place where kinds of error become HTTP statuses (the router has its own shapes)."""

import logging
from collections.abc import Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from msgspec import json
from starlette.exceptions import HTTPException
from starlette.types import Scope

from domain import errors
from domain.errors import FieldError, Invalid, TollhouseError

NO_TELEMETRY: TelemetryConfig = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}
"""The framework would tell whoever its own variables name, with the texts of errors. What is told is ours to say."""

_STATUS: tuple[tuple[type[TollhouseError], int], ...] = (
    (errors.Invalid, 400),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.VersionConflict, 412),
    (errors.Conflict, 409),
    (errors.Unavailable, 503),
)

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
_log = logging.getLogger("tollhouse.api")


def status_of(error: TollhouseError) -> int:
    """The HTTP status of an error of ours."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(
    status: int, code: str, detail: str, fields: Sequence[FieldError] = (), request_id: str | None = None
) -> Response:
    """An ``application/problem+json`` answer."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if fields:
        body["errors"] = [{"field": field.field, "message": field.message} for field in fields]
    if request_id is not None:
        body["request_id"] = request_id
    headers = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}.get(status, {})
    return Response(json.encode(body), status, headers, "application/problem+json")


def problem_of(error: TollhouseError, request_id: str | None = None) -> Response:
    """The answer to an error of ours."""
    fields = error.errors if isinstance(error, Invalid) else ()
    return problem(status_of(error), error.code, error.message, fields, request_id)


def bug(scope: Scope, error: Exception, request_id: str | None = None) -> Response:
    """The answer to an error that nobody foresaw. The log has it."""
    _log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
    return problem(500, "internal_error", "an error of ours; the log has it", request_id=request_id)


def invalid_of(error: RequestValidationError) -> Invalid:
    """What the framework found wrong with an input, as ours."""
    return Invalid(*(FieldError(_field(item["loc"]), _message(item)) for item in error.errors()))


def answer_problems(app: FastAPI) -> None:
    """Makes `app` answer every error as a problem."""

    @app.exception_handler(TollhouseError)
    async def ours(request: Request, error: TollhouseError) -> Response:
        return problem_of(error, _request_id(request))

    @app.exception_handler(RequestValidationError)
    async def invalid_input(request: Request, error: RequestValidationError) -> Response:
        return problem_of(invalid_of(error), _request_id(request))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # what could not be parsed at all, and is not even malformed JSON
            return problem_of(Invalid(FieldError("body", str(error.detail))), _request_id(request))
        code = _CODES.get(error.status_code, "invalid_request")
        return problem(error.status_code, code, str(error.detail), request_id=_request_id(request))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return bug(request.scope, error, _request_id(request))


def _request_id(request: Request) -> str | None:
    found: str | None = request.scope.get("tollhouse.request_id")
    return found


def _field(location: Sequence[int | str]) -> str:
    where, *path = location
    if where != "body" or not path:
        return ".".join(str(part) for part in path) or str(where)
    if len(path) == 1 and isinstance(path[0], int):
        return "body"  # malformed JSON: the number is a place in the text
    return ".".join(str(part) for part in path)


def _message(item: dict[str, object]) -> str:
    kind, message = str(item["type"]), str(item["msg"])
    if kind == "extra_forbidden":
        return "unknown field"
    if kind == "missing":
        return "is required"
    if kind == "json_invalid":
        context = item.get("ctx")
        return f"malformed JSON: {context['error'] if isinstance(context, dict) else message}"
    return message.removeprefix("Value error, ")
