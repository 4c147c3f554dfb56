"""What all faces of OpenAI's protocol share: the shapes of errors and of models."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.router.errors import error_body


class OpenAIFace:
    """Errors are OpenAI error objects; on a stream, an event that holds one: its clients raise what it says."""

    id_header: bytes | None = None
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
        """See `Face.error`. The id is in a header only."""
        del request
        return error_body(status, code, message, param, extra)

    def error_event(self, status: int, code: str, message: str) -> bytes:
        """See `Face.error_event`."""
        return b"data: " + error_body(status, code, message) + b"\n\n"

    def model(self, name: str) -> dict[str, Any]:
        """A model as ``/v1/models/{id}`` shows it."""
        return {"id": name, "object": "model", "created": 0, "owned_by": "tollhouse"}

    def models(self, names: Sequence[str]) -> dict[str, Any]:
        """``/v1/models``."""
        return {"object": "list", "data": [self.model(name) for name in names]}
