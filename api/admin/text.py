"""JSON can say what is no text: half of a surrogate pair. Nothing that stores or compares text takes it."""

import json
import re
from typing import Any

from domain.errors import invalid

_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def require_text(body: bytes) -> None:
    """Raises `Invalid` if `body` is not UTF-8, naming the field if a string in it, or the name of a member, is no text. What is
    no JSON is for others to refuse."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise invalid("body", f"must be UTF-8: it is not at byte {error.start}") from None
    if not _HALF.search(body):
        return
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        field, value = waiting.pop()
        if isinstance(value, str) and not _is_text(value):
            raise invalid(field or "body", "must be text: it has half of a surrogate pair")
        if isinstance(value, dict):
            if not all(map(_is_text, value)):
                raise invalid(field or "body", "must have names that are text: one has half of a surrogate pair")
            waiting += ((f"{field}.{name}" if field else name, each) for name, each in value.items())
        elif isinstance(value, list):
            waiting += ((f"{field}.{number}", each) for number, each in enumerate(value))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
