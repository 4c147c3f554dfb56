"""What all faces of Anthropic's protocol share: the shape of errors."""

from collections.abc import Mapping
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
        return msgspec.json.encode(
            {
                "type": "error",
                "error": {
                    "type": kind_of(status, code),
                    "message": message,
                    "param": param,
                    "code": code,
                    **(extra or {}),
                },
                "request_id": request,
            }
        )

    def error_event(self, status: int, code: str, message: str) -> bytes:
        """See `Face.error_event`."""
        return b"event: error\ndata: " + self.error(status, code, message) + b"\n\n"


def kind_of(status: int, code: str | None = None) -> str:
    """Anthropic's type of an error, by its status, and by its code where that says more."""
    kind = _KINDS_OF_CODES.get(code or "") or _KINDS.get(status)
    return kind or ("invalid_request_error" if status < 500 else "api_error")
