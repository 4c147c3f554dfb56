"""OpenAI error objects with Tollhouse's stable codes. The one place where the router's codes get their HTTP status."""

from collections.abc import Mapping
from typing import Any

import msgspec

from domain.errors import TollhouseError

STATUS: Mapping[str, int] = {
    "invalid_json": 400,
    "missing_model": 400,
    "unsupported_parameter": 400,
    "invalid_value": 400,
    "invalid_api_key": 401,
    "insufficient_quota": 402,
    "model_not_allowed": 403,
    "organization_suspended": 403,
    "project_suspended": 403,
    "user_suspended": 403,
    "model_not_found": 404,
    "unknown_url": 404,
    "request_timeout": 408,
    "duplicate_request": 409,
    "request_too_large": 413,
    "unsupported_encoding": 415,
    "model_unpriced": 422,
    "unbounded_cost": 422,
    "rate_limit_exceeded": 429,
    "budget_busy": 429,
    "upstream_error": 502,
    "gate_unavailable": 503,
    "log_unavailable": 503,
    "not_ready": 503,
    "no_backend": 503,
    "overloaded": 503,
    "upstream_timeout": 504,
}

_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


BOOKED: Mapping[str, str] = {
    "invalid_value": "a field is not what its protocol has",
    "model_not_found": "there is no such model",
    "unsupported_parameter": "a field cannot be carried to the backends of this model",
}
"""What the books say of refusals whose message repeats what the caller called things."""


PROCESS_ENDS = "this process ends, and could not wait for the answer any longer: try again"
"""What outlasts a drain is told (``not_ready``)."""


NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises: also for text that is no UTF-8, and for nesting deeper than anybody needs."""


class RouterError(TollhouseError):
    """An answer that is an error object. `param` names the field at fault, `extra` adds members to the object."""

    def __init__(
        self, code: str, message: str, *, param: str | None = None, extra: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.param, self.extra = param, extra or {}


def error_members(
    status: int, code: str, message: str, param: str | None = None, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The members of an error object: ``message, type, param, code`` and `extra`."""
    kind = "insufficient_quota" if code == "insufficient_quota" else _TYPES.get(status)
    if kind is None:
        kind = "invalid_request_error" if status < 500 else "server_error"
    return {"message": message, "type": kind, "param": param, "code": code, **(extra or {})}


def error_body(
    status: int, code: str, message: str, param: str | None = None, extra: Mapping[str, Any] | None = None
) -> bytes:
    """``{"error": {"message", "type", "param", "code", ...}}``."""
    return msgspec.json.encode({"error": error_members(status, code, message, param, extra)})
