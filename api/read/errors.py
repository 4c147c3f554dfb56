"""Errors of the read API: problems, and OpenAI's error objects under ``/v1/``."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.admin.entrance import REQUEST_ID
from api.framework import invalid_of
from api.problems import problem, problem_of, status_of
from api.router.errors import error_body
from domain.errors import Invalid, TollhouseError

_CODES = {404: "unknown_url", 405: "method_not_allowed"}
_log = logging.getLogger("tollhouse.api")


def refusal(error: TollhouseError, path: str, request_id: str | None) -> Response:
    """The answer to an error of ours on `path`."""
    if not path.startswith("/v1/"):
        return problem_of(error, request_id)
    status = status_of(error)
    param = error.errors[0].field if isinstance(error, Invalid) and error.errors else None
    headers = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}.get(status, {})
    return Response(error_body(status, error.code, error.message, param), status, headers, "application/json")


def answer_errors(app: FastAPI) -> None:
    """Makes `app` answer every error in the shape of its path."""

    @app.exception_handler(TollhouseError)
    async def ours(request: Request, error: TollhouseError) -> Response:
        return refusal(error, request.url.path, request.scope.get(REQUEST_ID))

    @app.exception_handler(RequestValidationError)
    async def invalid_input(request: Request, error: RequestValidationError) -> Response:
        return refusal(invalid_of(error), request.url.path, request.scope.get(REQUEST_ID))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "invalid_request")
        return _plain(request, error.status_code, code, str(error.detail))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _plain(request, 500, "internal_error", "an error of ours; the log has it")


def _plain(request: Request, status: int, code: str, message: str) -> Response:
    if request.url.path.startswith("/v1/"):
        return Response(error_body(status, code, message), status, media_type="application/json")
    return problem(status, code, message, request_id=request.scope.get(REQUEST_ID))
