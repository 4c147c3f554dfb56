"""A caller's trace goes through: to the backend, into the events, and, where a collector is named, with spans of ours in it."""

import subprocess
import sys
from typing import Any

from tests.collector import Collector, collector
from tests.lab import Lab
from tests.waiting import eventually

ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = f"00-{ID}-{PARENT}-01"
SERVER, CLIENT = 2, 3


async def _events(lab: Lab) -> list[dict[str, Any]]:
    """Every event there is."""
    found: list[dict[str, Any]] = (await lab.admin("GET", "/events?limit=1000"))["data"]
    return found


async def test_a_context_goes_on_as_it_came(lab: Lab) -> None:
    """Nobody asked for spans: the backend and the events have what the caller stated, and nothing where nothing was."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    ours = await lab.chat(key, "m", header_traceparent=CONTEXT, header_tracestate="a=b")
    assert ours.status == 200
    assert (await lab.chat(key, "m")).status == 200
    assert (await lab.chat(key, "m", header_traceparent="nonsense", header_tracestate="a=b")).status == 200
    refused = await lab.chat(key, "none", header_traceparent=CONTEXT)
    assert refused.status == 404
    carried = [(call.headers.get("traceparent"), call.headers.get("tracestate")) for call in fake.received]
    assert carried == [(CONTEXT, "a=b"), (None, None), (None, None)]
    await lab.admin("PATCH", "/orgs/acme", {"name": "Traced"}, traceparent=CONTEXT)
    last = {
        "RequestDenied",
        "OrganizationRenamed",
    }  # of the facts and of the control events; a read without a position may lag
    events = await eventually(lambda: _events(lab), lambda events: last <= {event["type"] for event in events})
    traced = {(event["type"], event["correlation_id"]) for event in events if event.get("traceparent") == CONTEXT}
    assert {kind for kind, _ in traced} == {
        "RequestAdmitted",
        "RequestCompleted",
        "RequestDenied",
        "OrganizationRenamed",
    }
    assert {id for kind, id in traced if kind.startswith("Request")} == {ours.id, refused.id}
    assert {event.get("traceparent") for event in events} == {None, CONTEXT}


async def test_requests_are_told_as_spans() -> None:
    """A span of the request inside its caller's, one of each try inside that, and the backend is asked in the try's: with the
    names that OpenTelemetry has for them, what was used and what it cost. What was refused is one span with its code."""
    with collector() as told:
        async with Lab({"TOLLHOUSE_OTLP": told.url}) as lab:
            fake = await lab.fake()
            await lab.model("m", fake.url)
            key = (await lab.org("acme"))["main"]
            served = await lab.chat(key, "m", max_tokens=5, header_traceparent=CONTEXT)
            opened = await lab.stream(key, "m", max_tokens=2)
            while await opened.piece():
                pass
            fake.refusing["m"] = 500
            assert (await lab.chat(key, "m")).status == 502
            assert (await lab.chat(key, "none", header_traceparent=CONTEXT)).status == 404
            assert (await lab.chat(key, "m", header_traceparent=CONTEXT[:-1] + "0")).status == 502
            await lab.product.stop()
            _check(told, served.id, [call.headers["traceparent"] for call in fake.received])
            for raw in told.raw:
                assert b"how are you" not in raw
                assert key.secret.encode() not in raw


def _check(told: Collector, served: str, carried: list[str]) -> None:
    requests, tries = told.named("POST /v1/chat/completions"), told.named("chat m")
    assert (len(requests), len(tries), len(told.spans)) == (4, 3, 7)
    request = next(span for span in requests if span.attributes["tollhouse.request"] == served)
    assert (request.trace, request.parent, request.kind, request.broken) == (ID, PARENT, SERVER, False)
    assert request.attributes["http.response.status_code"] == 200
    (attempt,) = [span for span in tries if span.parent == request.id]
    assert (attempt.trace, attempt.kind, attempt.broken) == (ID, CLIENT, False)
    assert request.began <= attempt.ended <= request.ended
    assert carried[0] == f"00-{ID}-{attempt.id}-01"
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 5,
        "tollhouse.backend": "fake",
        "tollhouse.organization": "acme",
        "http.response.status_code": 200,
    }
    assert {name: attempt.attributes[name] for name in expected} == expected
    (streamed,) = [span for span in tries if span.attributes.get("gen_ai.request.stream")]
    assert streamed.attributes["gen_ai.response.time_to_first_chunk"] > 0
    (failed,) = [span for span in tries if span.broken]
    assert failed.attributes["error.type"] == "500"
    assert {span.attributes.get("error.type") for span in requests} == {None, "upstream_error", "model_not_found"}
    assert {span.trace for span in told.spans if span.trace != ID} == {streamed.trace, failed.trace}
    assert carried[-1].endswith("-00")  # a caller who is not sampled is told nowhere, and carried on


def test_nothing_of_it_is_loaded_where_nobody_asked() -> None:
    """Neither our adapter, nor the exporter, nor what that stands on."""
    code = (
        "import sys, cli.serve, cli.gateway, api.router.app\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.exporter', 'requests', 'infra.adapters.otlp'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
