"""An exchange: what a caller's headers say."""

from typing import Any

from api.router.exchange import Exchange
from api.router.faces.messages import parse_messages
from commands.tracing import trace_of

BODY = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
CONTEXT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def exchange(*headers: tuple[bytes, bytes]) -> Exchange:
    async def receive() -> dict[str, Any]:
        raise AssertionError("nobody reads here")

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError("nobody answers here")

    return Exchange("req_1", {"headers": [(b"host", b"x"), *headers]}, receive, send)


def test_a_header_in_several_lines_is_one_list_in_order() -> None:
    """As HTTP has it; one in a single line is as it came, and one that is not there is none."""
    asked = exchange((b"a", b"1, 2"), (b"b", b""), (b"a", b"3"))
    assert [asked.header(name) for name in (b"a", b"b", b"c")] == [b"1, 2,3", b"", None]


def test_a_trace_state_in_several_lines_goes_on_whole() -> None:
    """W3C trace context, 3.3.1. A context of two lines is none: nobody knows which one is meant."""
    stated = (b"traceparent", CONTEXT)
    trace = trace_of(exchange(stated, (b"tracestate", b"congo=t61,rojo=00f0"), (b"tracestate", b"gelb=1")).header)
    assert trace is not None
    assert trace.lines("req_1", 0) == b"traceparent: " + CONTEXT + b"\r\ntracestate: congo=t61,rojo=00f0,gelb=1\r\n"
    assert trace_of(exchange(stated, stated).header) is None


def test_betas_in_several_lines_all_go_on() -> None:
    """None of them is forgotten on the way."""
    asked = exchange((b"anthropic-beta", b"one-2025-01-01"), (b"anthropic-beta", b"two-2025-01-01"))
    assert b"one-2025-01-01,two-2025-01-01" in parse_messages(BODY, asked.header).carriage("anthropic").headers
