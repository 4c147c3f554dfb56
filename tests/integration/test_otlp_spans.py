"""Spans and a collector that is not there, or takes its time."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from commands.tracing import Trace
from infra.adapters import otlp_spans
from infra.adapters.ids import new_id
from infra.adapters.otlp_spans import OtlpSpans
from tests.collector import collector
from tests.listening import listening
from tests.waiting import PATIENCE

TRACE = Trace("4bf92f3577b34da6a3ce929d0e0e4736", None, "01", None, "00f067aa0ba902b7")


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """The URL of a collector that takes connections and says nothing."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            writer.close()

    async with listening(session) as url:
        yield url


def told(url: str, number: int) -> OtlpSpans:
    spans = OtlpSpans(url, lambda model, backend: None)
    for _ in range(number):
        spans.request(TRACE, new_id("req"), "chat.completions", "m", 200, "")
    return spans


async def test_a_collector_that_says_nothing_holds_up_no_end(
    silent: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it might take: the rest is lost, and the log says how much that is."""
    monkeypatch.setattr(otlp_spans, "SEND_SECONDS", 100 * PATIENCE)
    monkeypatch.setattr(otlp_spans, "CLOSE_SECONDS", 0.2)
    spans = told(silent, 3)
    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread(spans.close)
    assert _said(caplog) == ["3 of 3 spans never reached the collector"]


async def test_what_a_collector_refuses_is_lost_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody listens there any more."""
    with collector() as gone:
        pass
    await asyncio.to_thread(told(gone.url, 2).close)
    assert _said(caplog) == ["2 of 2 spans never reached the collector"]


async def test_what_is_taken_is_not_told_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    """What still waits in the end is sent."""
    with collector() as there:
        await asyncio.to_thread(told(there.url, 700).close)
        assert len(there.spans) == 700
    assert _said(caplog) == []


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "tollhouse.spans"]
