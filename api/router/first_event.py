"""Whether a stream begins with an error: some backends answer 200 before they know whether they can answer at all."""

import msgspec

from api.router.errors import NOT_JSON


class _Event(msgspec.Struct):
    type: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Event).decode


def is_error(passed: bytes) -> bool:
    """Whether the first event in `passed` has a member `error`, or is of that type: every protocol tells of one so."""
    if b'"error"' not in passed:
        return False
    for line in passed.splitlines():
        if line.startswith(b"data:"):
            try:
                event = _decode(line[5:])
            except NOT_JSON:
                return False
            return bytes(event.error) != b"null" or bytes(event.type) == b'"error"'
    return False
