"""W3C trace context: what a caller states is carried on, what is malformed is none."""

import pytest

from commands.tracing import Trace, told, trace_of, try_span

ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = f"00-{ID}-{PARENT}-01"


def stated(context: str, state: bytes | None = None) -> Trace | None:
    headers: dict[bytes, bytes | None] = {b"traceparent": context.encode(), b"tracestate": state}

    def header(name: bytes) -> bytes | None:
        return headers.get(name)

    return trace_of(header)


def test_a_context_goes_on_as_it_came() -> None:
    """Without spans of ours, whatever attempt and try it is: with what its vendors keep in it."""
    trace = stated(CONTEXT, b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
    assert trace is not None
    assert trace.context == CONTEXT
    assert trace.lines("req_1.2", 1) == (
        f"traceparent: {CONTEXT}\r\ntracestate: congo=t61rcWkgMzE,rojo=00f067aa0ba902b7\r\n".encode()
    )


def test_where_none_is_stated_there_is_none() -> None:
    """Also where only a state is."""
    assert trace_of(lambda name: None) is None
    assert trace_of(lambda name: b"a=b" if name == b"tracestate" else None) is None


@pytest.mark.parametrize(
    "context",
    [
        "",
        "00",
        CONTEXT.upper(),
        CONTEXT[:-1],
        f"{CONTEXT}-",
        f"{CONTEXT}-more",
        f" {CONTEXT}",
        f"ff-{ID}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID[:-1]}g-{PARENT}-01",
        f"00-{ID}-{PARENT}-01\r\nx-a: b",
    ],
)
def test_what_is_malformed_is_none(context: str) -> None:
    """Nothing of it reaches a backend."""
    assert stated(context) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """And goes on as what we know."""
    trace = stated(f"cc-{ID}-{PARENT}-01-what.the.future.brings")
    assert trace is not None
    assert trace.context == CONTEXT


@pytest.mark.parametrize("state", [b"", b"a=\x00", b"a=\xff", b"a" * 513])
def test_a_state_that_is_none_is_dropped(state: bytes) -> None:
    """The context goes on without."""
    trace = stated(CONTEXT, state)
    assert trace is not None
    assert trace.lines("req_1", 0) == f"traceparent: {CONTEXT}\r\n".encode()


def test_a_request_is_a_span_of_its_callers_trace_and_its_tries_are_children() -> None:
    """Each has an id of its own, which the same request, attempt and try always have."""
    trace = told(stated(CONTEXT), "req_1")
    assert (trace.id, trace.parent, trace.sampled) == (ID, PARENT, True)
    assert trace.context == f"00-{ID}-{trace.span}-01"
    tries = [("req_1", 0), ("req_1", 1), ("req_1.2", 0)]
    lines = [trace.lines(*each) for each in tries]
    assert lines == [f"traceparent: 00-{ID}-{try_span(*each)}-01\r\n".encode() for each in tries]
    assert len({PARENT, trace.span, *(try_span(*each) for each in tries)}) == 5
    assert told(stated(CONTEXT), "req_1") == trace


def test_a_request_without_a_caller_s_trace_begins_one() -> None:
    """Sampled, with ids that are ids."""
    one, other = told(None, "req_1"), told(None, "req_2")
    assert one.parent is None
    assert one.id != other.id
    carried = stated(one.context)
    assert carried is not None
    assert carried.sampled


def test_whoever_is_not_sampled_stays_so() -> None:
    """The caller decided."""
    trace = stated(CONTEXT[:-1] + "0")
    assert trace is not None
    assert not told(trace, "req_1").sampled
