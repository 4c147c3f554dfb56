"""Errors as RFC 9457 problems: the one place where kinds of error become HTTP statuses (the router has its own shapes).

It needs no web framework: processes that only refuse with problems start without one. `api.framework` speaks for that.
"""

import logging
from collections.abc import Sequence
from http import HTTPStatus

from msgspec import json
from starlette.responses import Response
from starlette.types import Scope

from domain import errors
from domain.errors import FieldError, Invalid, TollhouseError

_STATUS: tuple[tuple[type[TollhouseError], int], ...] = (
    (errors.Invalid, 400),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.VersionConflict, 412),
    (errors.Conflict, 409),
    (errors.Unavailable, 503),
)

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
