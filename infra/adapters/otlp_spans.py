"""Spans of requests as OpenTelemetry tells them: by OTLP over HTTP, named as its conventions for generative AI name things.

A request is one span, each try at a backend another inside it. They are made of what is known when it is over, so a request
costs nothing more while it lasts. Told are figures, names of models and backends, and codes: never what anybody said. Spans wait
in a bounded queue for a thread that sends them; what does not fit, or finds no collector, is lost.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from commands.tracing import Ended, Trace, try_span
from domain.facts import RequestCompleted, RequestUnconfirmed, Try
from domain.ids import moment_of
from domain.money import format_usd

Attributes = dict[str, str | int | float | bool]

OPERATIONS: Mapping[str, str] = {
    "chat.completions": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
"""``gen_ai.operation.name`` of each endpoint."""

SEND_SECONDS = 3.0
"""What a batch may take, with all its tries."""

CLOSE_SECONDS = 2.0
"""What sending the rest may take in the end."""

_SCOPE = InstrumentationScope("tollhouse")
_MS = 1_000_000

_log = logging.getLogger("tollhouse.spans")


class _Exporter(SpanExporter):
    """Counts what the collector took, until it is given up."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._given_up = False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._given_up:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.taken += len(spans)
        return result

    def give_up(self) -> None:
        """Nothing more is sent, nor tried again."""
        self._given_up = True
        self._exporter.shutdown()

    def shutdown(self) -> None:
        if not self._given_up:
            self.give_up()


class OtlpSpans:
    """`Spans`. `endpoint` is the collector's base URL; `provider(model, backend)` names the protocol that a backend speaks."""

    def __init__(self, endpoint: str, provider: Callable[[str, str], str | None]) -> None:
        self._exporter = _Exporter(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=SEND_SECONDS))
        self._processor = BatchSpanProcessor(self._exporter)
        self._told = 0
        self._resource = Resource.create({"service.name": "tollhouse"})
        self._provider = provider

    def request(self, trace: Trace, request: str, endpoint: str, model: str, status: int, code: str) -> None:
        """See `Spans`."""
        if not trace.sampled:
            return
        route = f"/v1/{endpoint.replace('.', '/')}"
        attributes: Attributes = {
            "http.request.method": "POST",
            "http.route": route,
            "http.response.status_code": status,
            "gen_ai.request.model": model,
            "tollhouse.request": request,
        }
        if code:
            attributes["error.type"] = code
        began = moment_of(request) * _MS
        self._tell(
            f"POST {route}",
            SpanKind.SERVER,
            trace,
            trace.span,
            trace.parent,
            began,
            time.time_ns(),
            attributes,
            status >= 500,
        )

    def tries(self, trace: Trace, fact: Ended) -> None:
        """See `Spans`."""
        if not trace.sampled:
            return
        end = _nanoseconds(fact.accounted_at) + int(fact.latency_ms * _MS)
        for number in reversed(range(len(fact.tries))):
            tried = fact.tries[number]
            last = number == len(fact.tries) - 1
            attributes = self._attributes(fact, tried)
            if last:
                attributes |= _outcome(fact)
            began = end - int(tried.ms * _MS)
            name = f"{attributes['gen_ai.operation.name']} {fact.model}"
            own, broken = try_span(fact.attempt, number), "error.type" in attributes
            self._tell(name, SpanKind.CLIENT, trace, own, trace.span, began, end, attributes, broken)
            end = began

    def close(self) -> None:
        """Sends what waits, for `CLOSE_SECONDS` at most. The log says how many spans were lost, if any were."""
        ending = Thread(target=self._processor.shutdown, name="spans", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            self._exporter.give_up()
        if lost := self._told - self._exporter.taken:
            _log.warning("%d of %d spans never reached the collector", lost, self._told)

    def _attributes(self, fact: Ended, tried: Try) -> Attributes:
        attributes: Attributes = {
            "gen_ai.operation.name": OPERATIONS.get(fact.endpoint, fact.endpoint),
            "gen_ai.provider.name": self._provider(fact.model, tried.backend) or "unknown",
            "gen_ai.request.model": fact.model,
            "tollhouse.attempt": fact.attempt,
            "tollhouse.backend": tried.backend,
            "tollhouse.organization": fact.org,
            "tollhouse.project": fact.project,
        }
        if fact.stream:
            attributes["gen_ai.request.stream"] = True
        if tried.status:
            attributes["http.response.status_code"] = tried.status
        if tried.error is not None or tried.status >= 400:
            attributes["error.type"] = tried.error or str(tried.status)
        return attributes

    def _tell(
        self,
        name: str,
        kind: SpanKind,
        trace: Trace,
        own: str | None,
        parent: str | None,
        began: int,
        ended: int,
        attributes: Attributes,
        broken: bool,
    ) -> None:
        assert own is not None
        self._told += 1
        self._processor.on_end(
            ReadableSpan(
                name,
                context=_context(trace, own, remote=False),
                parent=None if parent is None else _context(trace, parent, remote=kind is SpanKind.SERVER),
                resource=self._resource,
                attributes=attributes,
                kind=kind,
                status=Status(StatusCode.ERROR if broken else StatusCode.UNSET),
                start_time=began,
                end_time=max(began, ended),
                instrumentation_scope=_SCOPE,
            )
        )


def _outcome(fact: Ended) -> Attributes:
    """What the last try of an attempt came to."""
    if isinstance(fact, RequestUnconfirmed):
        return {"error.type": fact.reason}
    if not isinstance(fact, RequestCompleted):
        return {}
    usage = fact.usage
    attributes: Attributes = {
        "gen_ai.usage.input_tokens": usage.all_input,
        "gen_ai.usage.output_tokens": usage.all_output,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
        "tollhouse.cost_usd": format_usd(fact.cost),
        "tollhouse.estimated": fact.estimated,
    }
    if fact.first_token_ms is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = fact.first_token_ms / 1000
    return attributes


def _context(trace: Trace, span: str, *, remote: bool) -> SpanContext:
    state = TraceState.from_header([trace.state.decode()]) if trace.state else TraceState()
    return SpanContext(int(trace.id, 16), int(span, 16), remote, TraceFlags(int(trace.flags, 16)), state)


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000) * 1000
