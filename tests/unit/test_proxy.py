"""What is passed on to another process of the same installation, which may be behind something else."""

from typing import Any

from api.proxy import Proxy
from tests.unit.forward_house import Answered, stream


class Sent:
    """A sender that keeps the header lines of what it was given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    async def send(self, url: str, path: str, headers: bytes, *_: Any, **__: Any) -> Answered:
        self.lines = headers.split(b"\r\n")[:-1]
        return stream(b"{}")


async def test_the_answer_is_asked_for_as_it_is() -> None:
    """Clients take compressed answers, and what is in front of the other process would give one: nobody here opens it. What is of
    the caller's own connection stays here, too."""
    sender = Sent()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(_: dict[str, Any]) -> None:
        """Nobody reads it."""

    scope = {
        "method": "GET",
        "raw_path": b"/v1/requests/req_1",
        "query_string": b"",
        "headers": [
            (b"host", b"gateway"),
            (b"authorization", b"Bearer th_sk_x"),
            (b"accept-encoding", b"gzip, br"),
            (b"connection", b"keep-alive"),
        ],
    }
    await Proxy(sender, "http://other")(scope, receive, send, "req_2")
    assert sender.lines == [b"authorization: Bearer th_sk_x", b"accept-encoding: identity"]


async def test_a_compressed_body_is_refused_as_everywhere() -> None:
    """With the status that its code has: 415, and not that of one that is too large."""
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"\x1f\x8b"}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    scope = {"method": "POST", "headers": [(b"content-encoding", b"gzip")]}
    await Proxy(Sent(), "http://other")(scope, receive, send, "req_1")
    assert said[0]["status"] == 415
    assert b"unsupported_encoding" in said[1]["body"]
