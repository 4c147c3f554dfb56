"""What all faces of Anthropic's protocol share: the shapes of errors and of models."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_KINDS_OF_CODES = {"insufficient_quota": "billing_error", "overloaded": "overloaded_error"}


class AnthropicFace:
    """Errors are Anthropic's error objects, with Tollhouse's codes; on a stream, an ``error`` event."""

    id_header = b"request-id"
    """Where its clients look for the request's id, beside ``x-request-id``."""

    def error(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        extra: Mapping[str, Any] | None = None,
        request: str | None = None,
    ) -> bytes:
        """See `Face.error`: ``{"type": "error", "error": {"type", "message", "param", "code", ...}, "request_id"}``."""
        doc = error_doc(status, code, message, param)
        doc["error"] |= extra or {}
        return msgspec.json.encode({**doc, "request_id": request})

    def error_event(self, status: int, code: str, message: str) -> bytes:
        """See `Face.error_event`."""
        return b"event: error\ndata: " + self.error(status, code, message) + b"\n\n"

    def model(self, name: str) -> dict[str, Any]:
        """A model as ``/v1/models/{id}`` shows it; when it was made is not known."""
        made = "1970-01-01T00:00:00Z"
        return {"type": "model", "id": name, "display_name": name, "created_at": made, "lifecycle": "active"}

    def models(self, names: Sequence[str]) -> dict[str, Any]:
        """``/v1/models``: one page."""
        data = [self.model(name) for name in names]
        return {
            "data": data,
            "has_more": False,
            "first_id": names[0] if names else None,
            "last_id": names[-1] if names else None,
        }


def error_doc(status: int, code: str | None, message: str, param: str | None = None) -> dict[str, Any]:
    """``{"type": "error", "error": {"type", "message", "param", "code"}}``."""
    return {
        "type": "error",
        "error": {"type": kind_of(status, code), "message": message, "param": param, "code": code},
    }


def kind_of(status: int, code: str | None = None) -> str:
    """Anthropic's type of an error, by its status, and by its code where that says more."""
    kind = _KINDS_OF_CODES.get(code or "") or _KINDS.get(status)
    return kind or ("invalid_request_error" if status < 500 else "api_error")
