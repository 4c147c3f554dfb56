"""What the web framework finds wrong, as problems of ours, and what it may not do by itself."""

from collections.abc import Sequence

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException

from api.problems import bug, problem, problem_of
from domain.errors import FieldError, Invalid, TollhouseError

NO_TELEMETRY: TelemetryConfig = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}
"""The framework would tell whoever its own variables name, with the texts of errors. What is told is ours to say."""

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


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
