"""What all faces of OpenAI's protocol share: the shape of errors."""

from collections.abc import Mapping
from typing import Any

from api.router.errors import error_body


class OpenAIFace:
    """Errors are OpenAI error objects; on a stream, an event that holds one: its clients raise what it says."""

    def error(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        extra: Mapping[str, Any] | None = None,
        request: str | None = None,
    ) -> bytes:
        """See `Face.error`. The id is in a header only."""
        del request
        return error_body(status, code, message, param, extra)

    def error_event(self, status: int, code: str, message: str) -> bytes:
        """See `Face.error_event`."""
        return b"data: " + error_body(status, code, message) + b"\n\n"
